// Softmax cross-entropy over a vocabulary that may be cut over ranks: statistics of the columns at hand,
// which the caller joins, then the gradient in place of the logits: d(log_sum_exp - logit_target) / d logit_j
// = p_j - [j = target], d(log_sum_exp^2) / d logit_j = 2 log_sum_exp p_j.
#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {

namespace {

void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                              const Tensor& statistics) {
  const std::int64_t rows = logits.dim(0), columns = logits.dim(1);
  check_tensor(targets, "cross_entropy_statistics", "targets", {rows}, DType::int32);
  check_tensor(statistics, "cross_entropy_statistics", "statistics", {rows, 3}, DType::float64);
  const std::int32_t* target = targets.data<std::int32_t>();
  double* result = statistics.data<double>();
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = logits.data<T>();
#pragma omp parallel for
    for (std::int64_t row = 0; row < rows; ++row) {
      const T* p = in + row * columns;
      T largest = p[0], sum = 0;
      if (target[row] >= 0) {
#pragma omp simd reduction(max : largest)
        for (std::int64_t j = 0; j < columns; ++j) largest = p[j] > largest ? p[j] : largest;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t j = 0; j < columns; ++j) sum += exponential(p[j] - largest);
      }
      const std::int64_t own = target[row] - first_id;
      result[row * 3] = static_cast<double>(largest);
      result[row * 3 + 1] = static_cast<double>(sum);
      result[row * 3 + 2] = target[row] >= 0 && own >= 0 && own < columns ? static_cast<double>(p[own]) : 0.0;
    }
  });
}

void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, std::int64_t vocabulary,
                          const Tensor& log_sum_exp, const Tensor& sums) {
  const std::int64_t parts = statistics.dim(0), rows = statistics.dim(1);
  check_tensor(statistics, "cross_entropy_losses", "statistics", {parts, rows, 3}, DType::float64);
  check_tensor(log_sum_exp, "cross_entropy_losses", "log_sum_exp", {rows}, DType::float64);
  check_tensor(sums, "cross_entropy_losses", "sums", {2}, DType::float64);
  const std::int32_t* target = targets.data<std::int32_t>();
  const double* all = statistics.data<double>();
  double *result = log_sum_exp.data<double>(), *total = sums.data<double>();
  // In the order of the rows: few numbers, beside the logits that they come from.
  for (std::int64_t row = 0; row < rows; ++row) {
    result[row] = 0;
    if (target[row] < 0) continue;
    const auto of_part = [&](std::int64_t part) { return all + (part * rows + row) * 3; };
    double largest = of_part(0)[0], sum = 0, logit = 0;
    for (std::int64_t part = 1; part < parts; ++part) largest = std::max(largest, of_part(part)[0]);
    for (std::int64_t part = 0; part < parts; ++part) {
      sum += of_part(part)[1] * std::exp(of_part(part)[0] - largest);
      logit += of_part(part)[2];
    }
    result[row] = largest + std::log(sum);
    total[0] += target[row] < vocabulary ? result[row] - logit : std::numeric_limits<double>::quiet_NaN();
    total[1] += result[row] * result[row];
  }
}

void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                            const Tensor& log_sum_exp, double loss_scale, double z_scale) {
  const std::int64_t rows = logits.dim(0), columns = logits.dim(1);
  check_tensor(log_sum_exp, "cross_entropy_gradient", "log_sum_exp", {rows}, DType::float64);
  const std::int32_t* target = targets.data<std::int32_t>();
  const double* sums = log_sum_exp.data<double>();
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* in = logits.data<T>();
#pragma omp parallel for
    for (std::int64_t row = 0; row < rows; ++row) {
      T* p = in + row * columns;
      if (target[row] < 0) {
        std::fill_n(p, columns, T(0));
        continue;
      }
      const T shift = static_cast<T>(sums[row]);
      const T factor = static_cast<T>(loss_scale + 2 * z_scale * sums[row]);
#pragma omp simd
      for (std::int64_t j = 0; j < columns; ++j) p[j] = factor * exponential(p[j] - shift);
      const std::int64_t own = target[row] - first_id;
      if (own >= 0 && own < columns) p[own] -= static_cast<T>(loss_scale);
    }
  });
}

}  // namespace

void cpu::put_cross_entropy(Kernels& kernels) {
  kernels.cross_entropy_statistics = cross_entropy_statistics;
  kernels.cross_entropy_losses = cross_entropy_losses;
  kernels.cross_entropy_gradient = cross_entropy_gradient;
}

}  // namespace conclave
