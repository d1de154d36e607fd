#include "framework/data/batch_ramp.h"

#include <algorithm>

namespace conclave {

std::int64_t batch_size_at(const BatchRampRecipe& ramp, std::int64_t global_batch_size, std::int64_t step) {
  if (ramp.start_batch_size <= 0) return global_batch_size;
  return std::min(
      global_batch_size,
      ramp.start_batch_size + step / std::max<std::int64_t>(ramp.steps_per_increment, 1) * ramp.increment);
}

}  // namespace conclave
