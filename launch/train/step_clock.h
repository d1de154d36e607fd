// StepClock: how long a rank computes in each part of a step, waiting for others left out, over the last
// steps. It also tells which ranks are persistently slower than the rest. It is fixed in size and takes a few
// clock readings a step.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace conclave {

struct SlowRank {
  int rank;
  std::string sentence;
};

class StepClock {
 public:
  static constexpr std::int64_t window = 50;  // steps
  /// Parts are the seconds of computing by Activity.
  using Parts = std::array<double, activities>;

  explicit StepClock(Communicator& world) : world_(world) {}

  /// Notes that the rank goes on to this part; the journal hears of it too. `step` counts from 1.
  void begin(Activity activity, std::int64_t step);
  /// Notes that the step is over: its parts enter the window.
  void end_step();

  /// Returns for each part the median over the window, since one slow step says nothing.
  Parts typical() const;
  /// Returns name_slow_ranks of what is typical of each rank, once there are 20 steps; on every rank.
  /// Collective.
  std::vector<SlowRank> slow_ranks() const;

 private:
  void close_part();

  Communicator& world_;
  Activity activity_ = Activity::starting;
  bool running_ = false;
  std::chrono::steady_clock::time_point begin_{};
  double waited_ = 0;  // of the traffic table when the part began
  Parts parts_{};
  std::array<Parts, window> history_{};
  std::int64_t steps_ = 0;
};

/// Returns the ranks that compute for more than 1.2 times as long a step as the median rank, and at least a
/// millisecond longer. Each comes with the part in which it loses most. `seconds` has those of all ranks.
std::vector<SlowRank> name_slow_ranks(const std::vector<StepClock::Parts>& seconds);

}  // namespace conclave
