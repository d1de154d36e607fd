#include "framework/kernels/reciprocal.h"

#include <algorithm>

#include "framework/kernels/cpu/storage.h"

namespace conclave {
namespace {

void spread_reciprocal(const Tensor& x, double factor, double least, const Tensor& y) {
  check_reciprocal(x, y);
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T value = static_cast<T>(factor) / std::max(*x.data<T>(), static_cast<T>(least));
    std::fill_n(y.data<T>(), y.elements(), value);
  });
}

void spread_reciprocal_backward(const Tensor& x, double factor, double least, const Tensor& dy,
                                const Tensor& dx, Write write) {
  check_reciprocal(x, dy);
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T value = *x.data<T>();
    T sum = 0;
    for (std::int64_t j = 0; j < dy.elements(); ++j) sum += dy.data<T>()[j];
    const T derivative = value < static_cast<T>(least) ? T(0) : -static_cast<T>(factor) / (value * value);
    *dx.data<T>() = (write == Write::accumulate ? *dx.data<T>() : T(0)) + derivative * sum;
  });
}

}  // namespace

namespace cpu {

void put_reciprocal(Kernels& kernels) {
  auto& family = kernels.family<ReciprocalKernels>();
  family.spread_reciprocal = spread_reciprocal;
  family.spread_reciprocal_backward = spread_reciprocal_backward;
}

}  // namespace cpu
}  // namespace conclave
