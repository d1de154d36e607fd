// Attention on tensor cores: when it can be used, and its launches.
#pragma once

#include "framework/kernels/cuda/dialect.h"
#include "framework/tensor/tensor.h"

namespace conclave::DIALECT {

struct AttentionSizes;

/// Tensors of Kernels::attention; those of the backward are undefined in a forward pass.
struct AttentionTensors {
  const Tensor &query, &key, &value, &document_start, &out, &log_sum_exp;
  const Tensor dout{}, dquery{}, dkey{}, dvalue{};
};

/// bfloat16, heads of 64 or 128, memory at multiples of 16 bytes, on a GPU whose tensor cores and shared
/// memory do.
bool attention_fits_tiles(const AttentionSizes& sizes, const AttentionTensors& tensors);
void attention_on_tiles(const AttentionSizes& sizes, const AttentionTensors& tensors);
/// delta float32 [sequences, heads, length]: sums of dout * out over each head.
void attention_backward_on_tiles(const AttentionSizes& sizes, const AttentionTensors& tensors,
                                 const Tensor& delta);

}  // namespace conclave::DIALECT
