// Attention on tensor cores: when it can be used, and its launches.
#pragma once

#include "framework/kernels/attention_shape.h"
#include "framework/kernels/cuda/dialect.h"

namespace conclave::DIALECT {

struct AttentionSizes;

/// Tensors of Kernels::attention; those of the backward are undefined in a forward pass.
struct AttentionTensors {
  const Tensor &query, &key, &value;
  const KeyRanges& ranges;
  const Tensor &out, &log_sum_exp;
  const Tensor dout{}, dquery{}, dkey{}, dvalue{};
};

/// True for bfloat16, heads and values both 64 or both 128 wide, and memory at multiples of 16 bytes. The
/// GPU's tensor cores and shared memory must suffice, too.
bool attention_fits_tiles(const AttentionSizes& sizes, const AttentionTensors& tensors);
void attention_on_tiles(const AttentionSizes& sizes, const AttentionTensors& tensors);
/// delta float32 [sequences, heads, queries]: sums of dout * out over each head.
void attention_backward_on_tiles(const AttentionSizes& sizes, const AttentionTensors& tensors,
                                 const Tensor& delta);

}  // namespace conclave::DIALECT
