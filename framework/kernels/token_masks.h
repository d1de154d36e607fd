// The kernel of masks by token id: a family with a header of its own.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

struct TokenMaskKernels {
  explicit TokenMaskKernels(std::vector<AnyKernel*>& table) : close_by_token(table, "close_by_token") {
    close_by_token.set_work(
        [](const Tensor& tokens, const Tensor&, const Tensor&, const Tensor& logits) -> Profile::Work {
          return {static_cast<double>(tokens.bytes()) + 2 * static_cast<double>(logits.bytes())};
        });
  }

  /// A token keeps the logits of the experts that its id has, and those of all others become -infinity.
  /// Shapes: tokens int32 [tokens], -1 for padding, which keeps all; sets int32 [ids, 2, words]; second
  /// float64 [ids]; logits sums [tokens, experts]. Expert e is bit e % 32 of word e / 32. An id has its
  /// second set where second[id] > 0, and its first set elsewhere.
  Kernel<void(const Tensor& tokens, const Tensor& sets, const Tensor& second, const Tensor& logits)>
      close_by_token;
};

constexpr std::int64_t experts_of_word = 32;
inline std::int64_t words_of_experts(std::int64_t experts) {
  return (experts + experts_of_word - 1) / experts_of_word;
}

/// Checks what every back end asks of the arguments before it computes.
inline void check_token_mask(const Tensor& tokens, const Tensor& sets, const Tensor& second,
                             const Tensor& logits) {
  check_tensor(tokens, "close_by_token", "tokens", {logits.dim(0)}, DType::int32);
  check_tensor(sets, "close_by_token", "sets", {sets.dim(0), 2, words_of_experts(logits.dim(1))},
               DType::int32);
  check_tensor(second, "close_by_token", "second", {sets.dim(0)}, DType::float64);
}

}  // namespace conclave
