// The kernels of a reciprocal that a learned number has: a family with a header of its own.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

struct ReciprocalKernels {
  explicit ReciprocalKernels(std::vector<AnyKernel*>& table)
      : spread_reciprocal(table, "spread_reciprocal"),
        spread_reciprocal_backward(table, "spread_reciprocal_backward") {
    spread_reciprocal.set_work([](const Tensor& x, double, double, const Tensor& y) -> Profile::Work {
      return {static_cast<double>(x.bytes()) + static_cast<double>(y.bytes())};
    });
    spread_reciprocal_backward.set_work(
        [](const Tensor& x, double, double, const Tensor& dy, const Tensor& dx, Write) -> Profile::Work {
          return {static_cast<double>(x.bytes()) + static_cast<double>(dy.bytes()) +
                  static_cast<double>(dx.bytes())};
        });
  }

  /// y[j] = factor / max(x, least) for all j: x sums [1], y sums [width]; least > 0.
  Kernel<void(const Tensor& x, double factor, double least, const Tensor& y)> spread_reciprocal;
  /// dx = -factor / x^2 * sum of dy, or 0 where x < least.
  Kernel<void(const Tensor& x, double factor, double least, const Tensor& dy, const Tensor& dx, Write write)>
      spread_reciprocal_backward;
};

/// Checks what every back end asks of the arguments: one number, and a row of the same type.
inline void check_reciprocal(const Tensor& x, const Tensor& row) {
  check_tensor(x, "spread_reciprocal", "x", {1}, x.dtype());
  check_tensor(row, "spread_reciprocal", "y", {row.elements()}, x.dtype());
}

}  // namespace conclave
