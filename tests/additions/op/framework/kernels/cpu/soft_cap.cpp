#include "framework/kernels/soft_cap.h"

#include <cmath>

#include "framework/kernels/cpu/storage.h"

namespace conclave {
namespace {

void soft_cap(const Tensor& x, double cap, const Tensor& y) {
  check_tensor(y, "soft_cap", "y", x.shape(), x.dtype());
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto c = static_cast<cpu::Sum<T>>(cap);
    const T* px = x.data<T>();
    T* py = y.data<T>();
    const std::int64_t count = x.elements();
#pragma omp parallel for
    for (std::int64_t i = 0; i < count; ++i) cpu::store(py + i, c * std::tanh(cpu::load(px + i) / c));
  });
}

void soft_cap_backward(const Tensor& y, double cap, const Tensor& dy, const Tensor& dx) {
  check_tensor(dy, "soft_cap_backward", "dy", y.shape(), y.dtype());
  check_tensor(dx, "soft_cap_backward", "dx", y.shape(), y.dtype());
  cpu::with_storage_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto c = static_cast<cpu::Sum<T>>(cap);
    const T *py = y.data<T>(), *pdy = dy.data<T>();
    T* pdx = dx.data<T>();
    const std::int64_t count = y.elements();
#pragma omp parallel for
    for (std::int64_t i = 0; i < count; ++i) {
      const auto share = cpu::load(py + i) / c;
      cpu::store(pdx + i, cpu::load(pdy + i) * (1 - share * share));
    }
  });
}

}  // namespace

namespace cpu {

void put_soft_cap(Kernels& kernels) {
  auto& family = kernels.family<SoftCapKernels>();
  family.soft_cap = soft_cap;
  family.soft_cap_backward = soft_cap_backward;
}

}  // namespace cpu
}  // namespace conclave
