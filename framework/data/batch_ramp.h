// The batch ramp says how many sequences each step's global batch has. It is a pure function of the step.
#pragma once

#include <cstdint>

#include "framework/data/recipe.h"

namespace conclave {

/// Sequences in the global batch of a 0-based step. It begins with ramp.start_batch_size and grows by
/// ramp.increment every ramp.steps_per_increment steps until it is the whole global batch.
std::int64_t batch_size_at(const BatchRampRecipe& ramp, std::int64_t global_batch_size, std::int64_t step);

}  // namespace conclave
