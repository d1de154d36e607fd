// Biases: each is added to a column, and its gradient is the sum of the column.
#include "framework/kernels/bias.h"

#include <algorithm>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/storage.h"

namespace conclave {
namespace {

void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) {
  check_add_bias(x, bias, y);
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *px = x.data<T>(), *b = bias.data<T>();
    T* py = y.data<T>();
#pragma omp parallel for
    for (std::int64_t row = 0; row < rows; ++row) {
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i)
        cpu::store(py + row * width + i, cpu::load(px + row * width + i) + cpu::load(b + i));
    }
  });
}

void sum_of_rows(const Tensor& x, const Tensor& sum, Write write) {
  const std::int64_t rows = x.dim(0), width = x.dim(1), chunks = (rows + rows_of_chunk - 1) / rows_of_chunk;
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    const T* px = x.data<T>();
    std::vector<S> partial(static_cast<std::size_t>(chunks * width));
#pragma omp parallel for
    for (std::int64_t c = 0; c < chunks; ++c) {
      S* sums = partial.data() + c * width;
      for (std::int64_t row = c * rows_of_chunk; row < std::min(rows, (c + 1) * rows_of_chunk); ++row) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) sums[i] += cpu::load(px + row * width + i);
      }
    }
    cpu::with_result_type<T>("sum_of_rows", sum.dtype(), [&](auto result) {
      auto* to = sum.data<decltype(result)>();
      cpu::SummedRow<decltype(result)> total(width);
      S* sums = total.sums_of(to);
      for (std::int64_t i = 0; i < width; ++i) sums[i] = write == Write::overwrite ? S(0) : cpu::load(to + i);
      for (std::int64_t c = 0; c < chunks; ++c)
        for (std::int64_t i = 0; i < width; ++i) sums[i] += partial[static_cast<std::size_t>(c * width + i)];
      total.write(to);
    });
  });
}

}  // namespace

void cpu::put_bias(Kernels& kernels) {
  auto& family = kernels.family<BiasKernels>();
  family.add_bias = add_bias;
  family.sum_of_rows = sum_of_rows;
}

}  // namespace conclave
