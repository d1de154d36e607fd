#include "framework/autograd/ops/elementwise.h"

namespace conclave {

Variable to_type(Tape& tape, const Variable& x, DType dtype) {
  if (x.value.dtype() == dtype) return x;
  const Kernels& kernels = kernels_of(x.value);
  Variable y = tape.output(Tensor::empty(x.value.shape(), dtype, x.value.device()));
  kernels.convert(x.value, y.value);
  // dx = dy, rounded to the type of x
  tape.record("to_type",
              [&kernels, x_gradient = x.gradient, from = x.value.dtype(), y_gradient = y.gradient] {
                const Tensor dy = y_gradient.take();
                const Tensor dx = Tensor::empty(dy.shape(), from, dy.device());
                kernels.convert(dy, dx);
                x_gradient.add(dx);
              });
  return y;
}

Variable add(Tape& tape, const Variable& a, const Variable& b) {
  check_tensor(b.value, "add", "b", a.value.shape(), a.value.dtype());
  const Kernels& kernels = kernels_of(a.value);
  Variable sum = tape.output(Tensor::empty(a.value.shape(), a.value.dtype(), a.value.device()));
  kernels.add(a.value, b.value, sum.value);
  // da = db = dsum; one of the two needs memory of its own, since each may be added to later.
  tape.record("add", [a_gradient = a.gradient, b_gradient = b.gradient, out_gradient = sum.gradient] {
    const Tensor dsum = out_gradient.take();
    if (b_gradient.needed()) b_gradient.add(a_gradient.needed() ? dsum.clone() : dsum);
    a_gradient.add(dsum);
  });
  return sum;
}

Variable swiglu(Tape& tape, const Variable& gate, const Variable& up) {
  check_tensor(up.value, "swiglu", "up", gate.value.shape(), gate.value.dtype());
  const Kernels& kernels = kernels_of(gate.value);
  Variable y = tape.output(Tensor::empty(gate.value.shape(), gate.value.dtype(), gate.value.device()));
  kernels.swiglu(gate.value, up.value, y.value);
  // dup = dy silu(gate), dgate = dy up silu'(gate)
  tape.record("swiglu", [&kernels, gate, up, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    const Tensor dgate = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
    const Tensor dup = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
    kernels.swiglu_backward(gate.value, up.value, dy, dgate, dup);
    gate.gradient.add(dgate);
    up.gradient.add(dup);
  });
  return y;
}

Variable rms_norm(Tape& tape, const Variable& x, const Variable& weight, double epsilon) {
  const std::int64_t width = weight.value.dim(0);
  const Shape rows{x.value.elements() / width, width};
  const Kernels& kernels = kernels_of(x.value);
  Variable y = tape.output(Tensor::empty(x.value.shape(), x.value.dtype(), x.value.device()));
  const Tensor inverse_rms = Tensor::empty({rows[0]}, sum_type(x.value.dtype()), x.value.device());
  kernels.rms_norm(x.value.view(rows), weight.value, epsilon, y.value.view(rows), inverse_rms);
  // Formulas in kernels/cpu/norm.cpp, beside the loops.
  tape.record("rms_norm", [&kernels, x, weight, inverse_rms, rows, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    const Tensor dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
    Gradient::Target dweight{Tensor(), Write::overwrite};
    if (weight.gradient.needed()) dweight = weight.gradient.target();
    kernels.rms_norm_backward(x.value.view(rows), weight.value, inverse_rms, dy.view(rows), dx.view(rows),
                              dweight.tensor, dweight.write);
    x.gradient.add(dx);
  });
  return y;
}

Variable add_losses(Tape& tape, const std::vector<Variable>& losses, Device& device) {
  Device& place = losses.empty() ? device : losses[0].value.device();
  Variable sum = tape.output(Tensor::zeros({1}, DType::float64, place));
  for (const Variable& loss : losses) kernels_of(sum.value).add_scaled(loss.value, 1.0, sum.value);
  tape.record("add_losses", [losses, out_gradient = sum.gradient] {
    const Tensor dsum = out_gradient.take();
    for (const Variable& loss : losses) loss.gradient.add(dsum.clone());
  });
  return sum;
}

}  // namespace conclave
