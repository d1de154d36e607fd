// The learning-rate schedule: a pure function of the step.
#pragma once

#include <cstdint>

#include "optim/recipe.h"

namespace conclave {

/// Returns the factor on the learning rate at `step` (0-based) of `steps`. A linear warm-up reaches 1 at its
/// last step; then the schedule goes on in one of these ways:
///   - constant: the factor stays 1.
///   - linear, cosine: it decays to min_lr_ratio at the last step (Loshchilov and Hutter, arXiv 1608.03983).
///   - wsd: it stays 1, then decays linearly over the final decay_steps (Hu et al., arXiv 2404.06395).
double learning_rate_factor(const ScheduleRecipe& schedule, std::int64_t step, std::int64_t steps);

}  // namespace conclave
