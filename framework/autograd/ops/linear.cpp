#include "framework/autograd/ops/linear.h"

#include "framework/kernels/bias.h"

namespace conclave {

Variable linear(Tape& tape, const Variable& x, const Variable& weight) {
  const std::int64_t rows = x.value.dim(0), out = weight.value.dim(0), in = weight.value.dim(1);
  check_tensor(x.value, "linear", "x", {rows, in}, weight.value.dtype());
  const Kernels& kernels = kernels_of(x.value);
  Variable y = tape.output(Tensor::empty({rows, out}, x.value.dtype(), x.value.device()));
  kernels.gemm(x.value, Transpose::no, weight.value, Transpose::yes, y.value, Write::overwrite);
  // dx = dy W, dW = dy^T x
  tape.record("linear", [&kernels, x, weight, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    if (weight.gradient.needed()) {
      const auto dweight = weight.gradient.target();
      kernels.gemm(dy, Transpose::yes, x.value, Transpose::no, dweight.tensor, dweight.write);
    }
    if (x.gradient.needed()) {
      const auto dx = x.gradient.target();
      kernels.gemm(dy, Transpose::no, weight.value, Transpose::no, dx.tensor, dx.write);
    }
  });
  return y;
}

Variable add_bias(Tape& tape, const Variable& x, const Variable& bias) {
  const BiasKernels& kernels = kernels_of(x.value).family<BiasKernels>();
  Variable y = tape.output(Tensor::empty(x.value.shape(), x.value.dtype(), x.value.device()));
  kernels.add_bias(x.value, bias.value, y.value);
  // dx = dy, dbias = the sum over rows of dy
  tape.record("add_bias",
              [&kernels, x_gradient = x.gradient, bias_gradient = bias.gradient, out_gradient = y.gradient] {
                const Tensor dy = out_gradient.take();
                if (bias_gradient.needed()) {
                  const auto dbias = bias_gradient.target();
                  kernels.sum_of_rows(dy, dbias.tensor, dbias.write);
                }
                x_gradient.add(dy);
              });
  return y;
}

Variable grouped_linear(Tape& tape, const Variable& x, const Variable& weight, const RowOffsets& offsets) {
  const std::int64_t rows = x.value.dim(0), experts = weight.value.dim(0), out = weight.value.dim(1);
  check_tensor(x.value, "grouped_linear", "x", {rows, weight.value.dim(2)}, weight.value.dtype());
  check_tensor(offsets, "grouped_linear", "offsets", {experts + 1}, DType::int64);
  const Kernels& kernels = kernels_of(x.value);
  Variable y = tape.output(Tensor::empty({rows, out}, x.value.dtype(), x.value.device()));
  kernels.grouped_linear(x.value, weight.value, offsets, y.value);
  // As linear, expert by expert.
  tape.record("grouped_linear", [&kernels, x, weight, offsets, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    if (weight.gradient.needed()) {
      const auto dweight = weight.gradient.target();
      kernels.grouped_linear_dweight(dy, x.value, offsets, dweight.tensor, dweight.write);
    }
    if (x.gradient.needed()) {
      const auto dx = x.gradient.target();
      kernels.grouped_linear_dx(dy, weight.value, offsets, dx.tensor, dx.write);
    }
  });
  return y;
}

}  // namespace conclave
