// Rotary positions and causal grouped-query attention inside documents.
#pragma once

#include "framework/autograd/tape.h"

namespace conclave {

/// Rotates the halves of the first rotary_width elements of each head by the token's position (Su et al.,
/// arXiv 2104.09864; halves, not pairs); the others stay as they are.
Variable rope(Tape& tape, const Variable& x,  // [tokens, heads, head_width]
              const Tensor& positions,        // int32 [tokens]
              double theta,
              std::int64_t rotary_width);  // even, at most head_width -> [tokens, heads, head_width]

/// softmax(query key^T / sqrt(head_width)) value over the earlier tokens of the same document.
Variable attention(Tape& tape, const Variable& query,  // [sequences, length, heads * head_width]
                   const Variable& key,                // [sequences, length, kv_heads * head_width]
                   const Variable& value,              // [sequences, length, kv_heads * head_width]
                   const Tensor& document_start,  // int32 [sequences, length]; first column that may be seen
                   std::int64_t head_width);      // -> [sequences, length, heads * head_width]

}  // namespace conclave
