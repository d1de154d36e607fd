#include "optim/schedule.h"

#include <algorithm>
#include <cmath>

namespace conclave {

double learning_rate_factor(const ScheduleRecipe& schedule, std::int64_t step, std::int64_t steps) {
  if (step < schedule.warmup_steps)
    return static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  const double least = schedule.min_lr_ratio;
  // 0 at the end of the warm-up, 1 at the last step of the run.
  const auto progress = [&](std::int64_t first) {
    const double length = static_cast<double>(std::max<std::int64_t>(steps - 1 - first, 1));
    return std::clamp(static_cast<double>(step - first) / length, 0.0, 1.0);
  };
  switch (schedule.kind) {
    case ScheduleKind::constant:
      break;
    case ScheduleKind::linear:
      return 1.0 - (1.0 - least) * progress(schedule.warmup_steps);
    case ScheduleKind::cosine:
      return least +
             (1.0 - least) * 0.5 * (1.0 + std::cos(3.14159265358979323846 * progress(schedule.warmup_steps)));
    case ScheduleKind::wsd: {
      const std::int64_t decay =
          schedule.decay_steps > 0 ? schedule.decay_steps : std::max<std::int64_t>(steps / 10, 1);
      return 1.0 - (1.0 - least) * progress(std::max(schedule.warmup_steps, steps - 1 - decay));
    }
  }
  return 1.0;
}

}  // namespace conclave
