// LossSpikes notices when the loss of a step leaps out of those before it. A leap is more than 6 standard
// deviations of the last 100 steps. It is also more than half a nat, so that a flat curve raises no false
// alarm.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace conclave {

class LossSpikes {
 public:
  /// Looks at the next step's loss; returns what is unusual about it, or "". A spike is kept out of the mean,
  /// so that a second one is seen too. A loss that stays high for 20 steps is the new normal.
  std::string add(double loss);

 private:
  static constexpr std::int64_t window = 100, fewest = 20;
  std::array<double, window> losses_{};
  std::int64_t count_ = 0, spikes_in_row_ = 0;
};

}  // namespace conclave
