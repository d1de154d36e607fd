// Softmax cross-entropy with its gradient in place of the logits:
// d(loss_sum) / d logit_j = p_j - [j = target], d(log_sum_exp^2) / d logit_j = 2 log_sum_exp p_j.
#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {

void CpuKernels::cross_entropy(const Tensor& logits, const Tensor& targets, double loss_scale, double z_scale,
                               const Tensor& loss_sum, const Tensor& z_sum) const {
  const std::int64_t rows = logits.dim(0), vocabulary = logits.dim(1);
  check_tensor(targets, "cross_entropy", "targets", {rows}, DType::int32);
  const std::int32_t* target = targets.data<std::int32_t>();
  for (std::int64_t row = 0; row < rows; ++row)
    check(target[row] < vocabulary, "cross_entropy: target id ", target[row], " in row ", row,
          " is outside the vocabulary of ", vocabulary);
  std::vector<double> row_loss(static_cast<std::size_t>(rows)), row_z(static_cast<std::size_t>(rows));
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* in = logits.data<T>();
#pragma omp parallel for
    for (std::int64_t row = 0; row < rows; ++row) {
      T* p = in + row * vocabulary;
      if (target[row] < 0) {
        std::fill_n(p, vocabulary, T(0));
        continue;
      }
      T largest = p[0];
#pragma omp simd reduction(max : largest)
      for (std::int64_t j = 0; j < vocabulary; ++j) largest = p[j] > largest ? p[j] : largest;
      const T chosen = p[target[row]];
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = 0; j < vocabulary; ++j) {
        p[j] = exponential(p[j] - largest);
        sum += p[j];
      }
      const double log_sum_exp = static_cast<double>(largest) + std::log(static_cast<double>(sum));
      row_loss[static_cast<std::size_t>(row)] = log_sum_exp - static_cast<double>(chosen);
      row_z[static_cast<std::size_t>(row)] = log_sum_exp * log_sum_exp;
      const T factor = static_cast<T>((loss_scale + 2 * z_scale * log_sum_exp) / static_cast<double>(sum));
#pragma omp simd
      for (std::int64_t j = 0; j < vocabulary; ++j) p[j] *= factor;
      p[target[row]] -= static_cast<T>(loss_scale);
    }
  });
  for (std::int64_t row = 0; row < rows; ++row) {
    *loss_sum.data<double>() += row_loss[static_cast<std::size_t>(row)];
    *z_sum.data<double>() += row_z[static_cast<std::size_t>(row)];
  }
}

}  // namespace conclave
