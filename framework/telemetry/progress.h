// The progress line of a training run. On a terminal one line is rewritten in place, with a bar in front
// where there is room. Elsewhere, and always in log.txt, some fifty plain lines tell the same over the run.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "framework/telemetry/logger.h"

namespace conclave {

/// NaN stands for an unknown number, which the line leaves out. Only a loss of NaN is shown, as it is news.
struct ProgressState {
  std::int64_t step = 0;  // steps done
  double loss = std::numeric_limits<double>::quiet_NaN();
  double tokens_per_second = std::numeric_limits<double>::quiet_NaN();
  double matrix_rate_fraction =
      std::numeric_limits<double>::quiet_NaN();                      // of this machine's best matrix product
  double load_imbalance = std::numeric_limits<double>::quiet_NaN();  // max_load_violation
  double step_seconds = std::numeric_limits<double>::quiet_NaN();    // of this step
};

/// "step  30/300  loss 2.3456  12.3 k tokens/s  45% of matrix rate  imbalance 0.31  1:23 left"
std::string progress_text(const ProgressState& state, std::int64_t steps, double seconds_left);

/// "[=====>    ] ", at most as wide as `columns` leave beside a text of `text_columns`; "" where they leave
/// too little to be worth it.
std::string bar_text(std::int64_t done, std::int64_t steps, std::size_t text_columns, std::size_t columns);

/// 83.2 -> "1:23", 4000 -> "1:06:40", 100000 -> "1 d 3 h"
std::string duration_text(double seconds);

class Progress {
 public:
  Progress(Logger& logger, std::int64_t steps) : logger_(logger), steps_(steps) {}

  /// Call after every step, on any rank; only rank 0 shows anything.
  void update(const ProgressState& state);

 private:
  Logger& logger_;
  std::int64_t steps_;
  double smooth_step_seconds_ = 0;
  double last_rewrite_ = -1, last_plain_ = 0;
  std::int64_t last_plain_step_ = -1;
};

}  // namespace conclave
