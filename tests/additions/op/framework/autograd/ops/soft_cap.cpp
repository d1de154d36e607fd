#include "framework/autograd/ops/soft_cap.h"

#include "framework/kernels/soft_cap.h"

namespace conclave {

Variable soft_cap(Tape& tape, const Variable& x, double cap) {
  const auto& kernels = kernels_of(x.value).family<SoftCapKernels>();
  Variable y = tape.output(Tensor::empty(x.value.shape(), x.value.dtype(), x.value.device()));
  kernels.soft_cap(x.value, cap, y.value);
  tape.record("soft_cap",
              [&kernels, cap, y_value = y.value, x_gradient = x.gradient, y_gradient = y.gradient] {
                const Tensor dy = y_gradient.take();
                const Tensor dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
                kernels.soft_cap_backward(y_value, cap, dy, dx);
                x_gradient.add(dx);
              });
  return y;
}

}  // namespace conclave
