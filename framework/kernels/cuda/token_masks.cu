#include "framework/kernels/token_masks.h"

#include <limits>

#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

/// A thread has one logit after another.
KERNEL close_by_token_kernel(const std::int32_t* tokens, const std::int32_t* sets, const double* second,
                             std::int64_t items, std::int64_t experts, std::int64_t words, float* logits) {
  for (std::int64_t i = first_item(); i < items; i += item_stride()) {
    const std::int64_t id = tokens[i / experts], expert = i % experts;
    if (id < 0) continue;
    const std::int64_t set = 2 * id + (second[id] > 0 ? 1 : 0);
    const auto word = static_cast<std::uint32_t>(sets[set * words + expert / experts_of_word]);
    if ((word >> (expert % experts_of_word) & 1u) == 0) logits[i] = -std::numeric_limits<float>::infinity();
  }
}

namespace {

void close_by_token(const Tensor& tokens, const Tensor& sets, const Tensor& second, const Tensor& logits) {
  check_token_mask(tokens, sets, second, logits);
  check_float32("close_by_token", logits);
  launch(walk_over(logits.elements(), logits.device().stream()), close_by_token_kernel,
         tokens.data<std::int32_t>(), sets.data<std::int32_t>(), second.data<double>(), logits.elements(),
         logits.dim(1), sets.dim(2), logits.data<float>());
}

}  // namespace

void put_token_masks(Kernels& kernels) {
  kernels.family<TokenMaskKernels>().close_by_token = close_by_token;
}

}  // namespace conclave::DIALECT
