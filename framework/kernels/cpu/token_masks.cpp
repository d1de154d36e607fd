#include "framework/kernels/token_masks.h"

#include <limits>

#include "framework/kernels/cpu/storage.h"

namespace conclave {
namespace {

void close_by_token(const Tensor& tokens, const Tensor& sets, const Tensor& second, const Tensor& logits) {
  check_token_mask(tokens, sets, second, logits);
  const std::int64_t experts = logits.dim(1), words = sets.dim(2);
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::int32_t* ids = tokens.data<std::int32_t>();
    T* out = logits.data<T>();
#pragma omp parallel for
    for (std::int64_t t = 0; t < logits.dim(0); ++t) {
      if (ids[t] < 0) continue;
      const std::int64_t set = 2 * std::int64_t{ids[t]} + (second.data<double>()[ids[t]] > 0 ? 1 : 0);
      const std::int32_t* open = sets.data<std::int32_t>() + set * words;
      for (std::int64_t e = 0; e < experts; ++e) {
        const auto word = static_cast<std::uint32_t>(open[e / experts_of_word]);
        if ((word >> (e % experts_of_word) & 1u) == 0)
          out[t * experts + e] = -std::numeric_limits<T>::infinity();
      }
    }
  });
}

}  // namespace

namespace cpu {

void put_token_masks(Kernels& kernels) {
  kernels.family<TokenMaskKernels>().close_by_token = close_by_token;
}

}  // namespace cpu
}  // namespace conclave
