#include "framework/kernels/reciprocal.h"

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

KERNEL spread_reciprocal_kernel(const float* x, float factor, float least, float* y, std::int64_t width) {
  const float value = factor / (*x < least ? least : *x);
  for (std::int64_t j = first_item(); j < width; j += item_stride()) y[j] = value;
}

/// One block.
KERNEL spread_reciprocal_backward_kernel(const float* x, float factor, float least, const float* dy,
                                         std::int64_t width, bool accumulate, float* dx) {
  float sum = 0;
  for (std::int64_t j = thread_index(); j < width; j += block_size()) sum += dy[j];
  sum = block_reduce(sum, Sum{});
  if (thread_index() != 0) return;
  const float derivative = *x < least ? 0.0f : -factor / (*x * *x);
  *dx = (accumulate ? *dx : 0.0f) + derivative * sum;
}

namespace {

void spread_reciprocal(const Tensor& x, double factor, double least, const Tensor& y) {
  check_reciprocal(x, y);
  check_float32("spread_reciprocal", x);
  launch(walk_over(y.elements(), x.device().stream()), spread_reciprocal_kernel, x.data<float>(),
         static_cast<float>(factor), static_cast<float>(least), y.data<float>(), y.elements());
}

void spread_reciprocal_backward(const Tensor& x, double factor, double least, const Tensor& dy,
                                const Tensor& dx, Write write) {
  check_reciprocal(x, dy);
  check_float32("spread_reciprocal_backward", x);
  launch({.blocks = 1, .stream = x.device().stream()}, spread_reciprocal_backward_kernel, x.data<float>(),
         static_cast<float>(factor), static_cast<float>(least), dy.data<float>(), dy.elements(),
         write == Write::accumulate, dx.data<float>());
}

}  // namespace

void put_reciprocal(Kernels& kernels) {
  auto& family = kernels.family<ReciprocalKernels>();
  family.spread_reciprocal = spread_reciprocal;
  family.spread_reciprocal_backward = spread_reciprocal_backward;
}

}  // namespace conclave::DIALECT
