// TimeLimit: training.time_limit. A run that has no more time than it needs to stop in order asks itself to
// stop.
#pragma once

#include <algorithm>
#include <string>

#include "framework/recipe/duration.h"
#include "framework/telemetry/logger.h"
#include "launch/train/stop_signals.h"

namespace conclave {

class TimeLimit {
 public:
  /// Counts from the logger's beginning. No duration means no limit.
  TimeLimit(const std::string& duration, const Logger& logger)
      : seconds_(*seconds_of_duration(duration)), logger_(logger) {}

  /// Requests a stop when less time than `needed` seconds, and a little for what is between, is left. Clocks
  /// differ, so any rank may be the first.
  void stop_before(double needed) {
    if (seconds_ == 0 || is_up_) return;
    if (logger_.elapsed_seconds() + needed + std::min(10.0, 0.02 * seconds_) < seconds_) return;
    is_up_ = true;
    request_stop();
  }
  /// True where the time is up for this rank.
  bool is_up() const { return is_up_; }

 private:
  double seconds_;
  const Logger& logger_;
  bool is_up_ = false;
};

}  // namespace conclave
