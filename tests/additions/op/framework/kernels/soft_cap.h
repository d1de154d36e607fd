// The kernels of soft_cap: a family with a header of its own.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

struct SoftCapKernels {
  explicit SoftCapKernels(std::vector<AnyKernel*>& table)
      : soft_cap(table, "soft_cap"), soft_cap_backward(table, "soft_cap_backward") {
    soft_cap.set_work([](const Tensor& x, double, const Tensor& y) -> Profile::Work {
      return {static_cast<double>(x.bytes() + y.bytes())};
    });
    soft_cap_backward.set_work(
        [](const Tensor& y, double, const Tensor& dy, const Tensor& dx) -> Profile::Work {
          return {static_cast<double>(y.bytes() + dy.bytes() + dx.bytes())};
        });
  }

  /// y = cap * tanh(x / cap), of one shape and type
  Kernel<void(const Tensor& x, double cap, const Tensor& y)> soft_cap;
  /// dx = dy (1 - (y / cap)^2)
  Kernel<void(const Tensor& y, double cap, const Tensor& dy, const Tensor& dx)> soft_cap_backward;
};

}  // namespace conclave
