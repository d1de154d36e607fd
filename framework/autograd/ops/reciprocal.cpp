#include "framework/autograd/ops/reciprocal.h"

#include "framework/kernels/reciprocal.h"

namespace conclave {

Variable spread_reciprocal(Tape& tape, const Variable& x, std::int64_t width, double factor, double least) {
  const auto& kernels = kernels_of(x.value).family<ReciprocalKernels>();
  Variable y = tape.output(Tensor::empty({width}, x.value.dtype(), x.value.device()));
  kernels.spread_reciprocal(x.value, factor, least, y.value);
  tape.record("spread_reciprocal", [&kernels, x, factor, least, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    if (!x.gradient.needed()) return;
    const auto dx = x.gradient.target();
    kernels.spread_reciprocal_backward(x.value, factor, least, dy, dx.tensor, dx.write);
  });
  return y;
}

}  // namespace conclave
