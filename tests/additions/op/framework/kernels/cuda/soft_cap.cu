#include "framework/kernels/soft_cap.h"

#include <cmath>

#include "framework/kernels/cuda/dialect.h"
#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

template <class T>
KERNEL soft_cap_kernel(const T* x, float cap, T* y, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride())
    store(y + i, cap * std::tanh(load(x + i) / cap));
}

template <class T>
KERNEL soft_cap_backward_kernel(const T* y, float cap, const T* dy, T* dx, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) {
    const float share = load(y + i) / cap;
    store(dx + i, load(dy + i) * (1 - share * share));
  }
}

namespace {

void soft_cap(const Tensor& x, double cap, const Tensor& y) {
  check_tensor(y, "soft_cap", "y", x.shape(), x.dtype());
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(walk_over(x.elements(), x.device().stream()), soft_cap_kernel<T>, x.data<T>(),
           static_cast<float>(cap), y.data<T>(), x.elements());
  });
}

void soft_cap_backward(const Tensor& y, double cap, const Tensor& dy, const Tensor& dx) {
  check_tensor(dy, "soft_cap_backward", "dy", y.shape(), y.dtype());
  check_tensor(dx, "soft_cap_backward", "dx", y.shape(), y.dtype());
  with_storage_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(walk_over(y.elements(), y.device().stream()), soft_cap_backward_kernel<T>, y.data<T>(),
           static_cast<float>(cap), dy.data<T>(), dx.data<T>(), y.elements());
  });
}

}  // namespace

void put_soft_cap(Kernels& kernels) {
  auto& family = kernels.family<SoftCapKernels>();
  family.soft_cap = soft_cap;
  family.soft_cap_backward = soft_cap_backward;
}

}  // namespace conclave::DIALECT
