// The learning-rate schedule: a pure function of the step.
#pragma once

#include <cstdint>

#include "optim/recipe.h"

namespace conclave {

/// The factor on the learning rate at `step` (0-based) of `steps`: a linear warm-up that reaches 1 at its
/// last step, then constant; linear or cosine decay to min_lr_ratio at the last step (Loshchilov and Hutter,
/// arXiv 1608.03983); or wsd: constant, then a linear decay over the final decay_steps (Hu et al., arXiv
/// 2404.06395).
double learning_rate_factor(const ScheduleRecipe& schedule, std::int64_t step, std::int64_t steps);

}  // namespace conclave
