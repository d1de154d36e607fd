// The sizes of one call of attention, and which keys each of its queries sees.
#pragma once

#include "framework/tensor/tensor.h"

namespace conclave {

/// The keys that each query sees. Query t of sequence s sees the keys first[s, t] .. last[s, t], both
/// included. It sees none where last[s, t] < first[s, t]. Both are int32 [sequences, queries]. Keys are
/// counted from 0 in each sequence, and those that are seen must exist. A causal mask, documents, windows and
/// parts of a context are ranges.
struct KeyRanges {
  Tensor first, last;
};

/// Heads of queries and keys are head_width wide, heads of values and of the output value_width.
struct AttentionShape {
  std::int64_t sequences, queries, keys, heads, kv_heads, head_width, value_width;

  /// Query heads that share one head of keys and values.
  std::int64_t group() const { return heads / kv_heads; }
  Shape out() const { return {sequences, queries, heads * value_width}; }
  Shape log_sum_exp() const { return {sequences, heads, queries}; }
};

/// Reads the sizes off the tensors of Kernels::attention; Fault::internal where they do not fit each other.
AttentionShape attention_shape(const Tensor& query, const Tensor& key, const Tensor& value,
                               const KeyRanges& ranges, std::int64_t head_width);

}  // namespace conclave
