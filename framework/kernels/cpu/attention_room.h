// The memory that the CPU's attention works in beside its tensors. Each thread has one room, cut into what a
// head needs. The counting device takes as much.
#pragma once

#include "framework/kernels/attention_shape.h"

namespace conclave::cpu {

constexpr std::int64_t query_block = 64;

/// How many parts of each kind: `queries` [query_block, head_width] and `outputs` [query_block, value_width];
/// `keys` [keys, head_width] and as many [keys, value_width]; `scores` [query_block, keys]. For bfloat16
/// there is one more of scores, rounded.
struct AttentionRoom {
  std::int64_t queries, outputs, keys, scores;

  /// The room of all threads, sums [threads, numbers]; query says type and device.
  Tensor take(std::int64_t threads, const AttentionShape& z, const Tensor& query) const {
    const std::int64_t rounded = query.dtype() == DType::bfloat16 ? (query_block * z.keys + 1) / 2 : 0;
    const std::int64_t numbers =
        query_block * (queries * z.head_width + outputs * z.value_width + scores * z.keys) +
        keys * z.keys * (z.head_width + z.value_width) + rounded;
    return Tensor::empty({threads, numbers}, sum_type(query.dtype()), query.device());
  }
};
constexpr AttentionRoom attention_room{.queries = 1, .outputs = 1, .keys = 1, .scores = 1};
constexpr AttentionRoom attention_backward_room{.queries = 2, .outputs = 1, .keys = 2, .scores = 2};

}  // namespace conclave::cpu
