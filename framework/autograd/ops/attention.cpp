#include "framework/autograd/ops/attention.h"

#include <cmath>

#include "framework/kernels/rope.h"

namespace conclave {

Variable rope(Tape& tape, const Variable& x, const Tensor& positions, const RopeFrequencies& frequencies,
              std::int64_t rotary_width) {
  const RopeKernels& kernels = kernels_of(x.value).family<RopeKernels>();
  Variable y = tape.output(Tensor::empty(x.value.shape(), x.value.dtype(), x.value.device()));
  kernels.rope(x.value, positions, frequencies, rotary_width, Rotation::forward, y.value);
  // A rotation's transpose is its inverse.
  tape.record("rope", [&kernels, x_gradient = x.gradient, positions, frequencies, rotary_width,
                       out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    const Tensor dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
    kernels.rope(dy, positions, frequencies, rotary_width, Rotation::inverse, dx);
    x_gradient.add(dx);
  });
  return y;
}

Variable attention(Tape& tape, const Variable& query, const Variable& key, const Variable& value,
                   const KeyRanges& ranges, std::int64_t head_width) {
  const AttentionShape shape = attention_shape(query.value, key.value, value.value, ranges, head_width);
  const Kernels& kernels = kernels_of(query.value);
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_width));
  Variable out = tape.output(Tensor::empty(shape.out(), query.value.dtype(), query.value.device()));
  const Tensor log_sum_exp =
      Tensor::empty(shape.log_sum_exp(), sum_type(query.value.dtype()), query.value.device());
  kernels.attention(query.value, key.value, value.value, ranges, head_width, scale, out.value, log_sum_exp);
  // Probabilities are recomputed from log_sum_exp; formulas in kernels/cpu/attention.cpp, beside the loops.
  tape.record("attention", [&kernels, query, key, value, ranges, head_width, scale, log_sum_exp,
                            out_value = out.value, out_gradient = out.gradient] {
    const Tensor dout = out_gradient.take();
    const auto like = [](const Tensor& x) { return Tensor::empty(x.shape(), x.dtype(), x.device()); };
    const Tensor dquery = like(query.value), dkey = like(key.value), dvalue = like(value.value);
    kernels.attention_backward(query.value, key.value, value.value, ranges, head_width, scale, out_value,
                               log_sum_exp, dout, dquery, dkey, dvalue);
    query.gradient.add(dquery);
    key.gradient.add(dkey);
    value.gradient.add(dvalue);
  });
  return out;
}

}  // namespace conclave
