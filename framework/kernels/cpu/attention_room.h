// The memory that the CPU's attention works in beside its tensors: each thread has one room, cut into what a
// head needs. The counting device takes as much.
#pragma once

#include "framework/tensor/tensor.h"

namespace conclave::cpu {

constexpr std::int64_t query_block = 64;

/// How many parts of each kind: `blocks` [query_block, head_width], `heads` [length, head_width], `scores`
/// [query_block, length].
struct AttentionRoom {
  std::int64_t blocks, heads, scores;

  /// The room of all threads, sums [threads, numbers]; query [sequences, length, heads * head_width].
  Tensor take(std::int64_t threads, const Tensor& query, std::int64_t head_width) const {
    const std::int64_t length = query.dim(1);
    const std::int64_t numbers =
        query_block * (blocks * head_width + scores * length) + heads * length * head_width;
    return Tensor::empty({threads, numbers}, sum_type(query.dtype()), query.device());
  }
};
constexpr AttentionRoom attention_room{.blocks = 2, .heads = 2, .scores = 1};
constexpr AttentionRoom attention_backward_room{.blocks = 3, .heads = 4, .scores = 2};

}  // namespace conclave::cpu
