// The kernels of biases, which are added to every row: a family with a header of its own.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

struct BiasKernels {
  explicit BiasKernels(std::vector<AnyKernel*>& table)
      : add_bias(table, "add_bias"), sum_of_rows(table, "sum_of_rows") {
    add_bias.set_work([](const Tensor& x, const Tensor& bias, const Tensor& y) -> Profile::Work {
      return {static_cast<double>(x.bytes() + bias.bytes() + y.bytes())};
    });
    sum_of_rows.set_work([](const Tensor& x, const Tensor& sum, Write) -> Profile::Work {
      return {static_cast<double>(x.bytes() + sum.bytes())};
    });
  }

  /// y[r] = x[r] + bias: x and y [rows, width], bias [width].
  Kernel<void(const Tensor& x, const Tensor& bias, const Tensor& y)> add_bias;
  /// The sum over the rows of x, in a fixed order, or += with Write::accumulate: x [rows, width], sum
  /// [width]. The type of sum is that of x, or its sum_type.
  Kernel<void(const Tensor& x, const Tensor& sum, Write write)> sum_of_rows;
};

/// Rows are summed over chunks of so many, then over chunks in order. No number of threads changes a sum.
constexpr std::int64_t rows_of_chunk = 128;

/// Checks what every back end asks of the arguments before it computes.
inline void check_add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) {
  check_tensor(bias, "add_bias", "bias", {x.dim(1)}, x.dtype());
  check_tensor(y, "add_bias", "y", x.shape(), x.dtype());
}

}  // namespace conclave
