// Rotary positions and grouped-query attention over a range of keys for each query.
#pragma once

#include "framework/autograd/tape.h"
#include "framework/kernels/attention_shape.h"
#include "framework/kernels/rope_frequencies.h"

namespace conclave {

/// Rotates the halves of the first rotary_width elements of each head by the token's position (Su et al.,
/// arXiv 2104.09864; halves, not pairs). The other elements stay as they are.
Variable rope(Tape& tape, const Variable& x,  // [tokens, heads, head_width]
              const Tensor& positions,        // int32 [tokens]
              const RopeFrequencies& frequencies,
              std::int64_t rotary_width);  // even, at most head_width -> [tokens, heads, head_width]

/// softmax(query key^T / sqrt(head_width)) value over the keys that each query sees; zero where it sees none.
Variable attention(Tape& tape, const Variable& query,  // [sequences, queries, heads * head_width]
                   const Variable& key,                // [sequences, keys, kv_heads * head_width]
                   const Variable& value,              // [sequences, keys, kv_heads * value_width]
                   const KeyRanges& ranges,            // of [sequences, queries]
                   std::int64_t head_width);           // -> [sequences, queries, heads * value_width]

}  // namespace conclave
