// Softmax cross-entropy, formulas in kernels/cpu/cross_entropy.cpp. A block takes a row of logits.
#pragma once

#include <limits>

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/scalar_math.h"

namespace conclave::DIALECT {

/// statistics [rows, 3]. The row is read once: each thread keeps its largest logit and the sum relative to
/// it.
KERNEL cross_entropy_statistics_kernel(const float* logits, const std::int32_t* targets,
                                       std::int64_t first_id, std::int64_t columns, double* statistics) {
  const std::int64_t row = block_index(), target = targets[row], own = target - first_id;
  const float* p = logits + row * columns;
  if (target < 0) {
    if (thread_index() < 3) statistics[row * 3 + thread_index()] = thread_index() == 0 ? p[0] : 0.0;
    return;
  }
  float largest = p[0], sum = 0;  // a start that every thread shares
  for (std::int64_t j = thread_index(); j < columns; j += block_size()) {
    const float logit = p[j];
    if (logit > largest) {
      sum *= exponential(largest - logit);
      largest = logit;
    }
    sum += exponential(logit - largest);
  }
  const float of_all = block_reduce(largest, Maximum{});
  const float total = block_reduce(sum * exponential(largest - of_all), Sum{});
  if (thread_index() == 0) {
    statistics[row * 3] = of_all;
    statistics[row * 3 + 1] = total;
    statistics[row * 3 + 2] = own >= 0 && own < columns ? p[own] : 0.0;
  }
}

/// One block: a chunk has a few hundred rows. statistics [parts, rows, 3].
KERNEL cross_entropy_losses_kernel(const double* statistics, const std::int32_t* targets, std::int64_t parts,
                                   std::int64_t rows, std::int64_t vocabulary, double* log_sum_exp,
                                   double* sums) {
  double loss = 0, square = 0;
  for (std::int64_t row = thread_index(); row < rows; row += block_size()) {
    double result = 0;
    if (targets[row] >= 0) {
      double largest = statistics[row * 3], sum = 0, logit = 0;
      for (std::int64_t part = 1; part < parts; ++part) {
        const double other = statistics[(part * rows + row) * 3];
        largest = largest < other ? other : largest;
      }
      for (std::int64_t part = 0; part < parts; ++part) {
        const double* own = statistics + (part * rows + row) * 3;
        sum += own[1] * std::exp(own[0] - largest);
        logit += own[2];
      }
      result = largest + std::log(sum);
      loss += targets[row] < vocabulary ? result - logit : std::numeric_limits<double>::quiet_NaN();
      square += result * result;
    }
    log_sum_exp[row] = result;
  }
  loss = block_reduce(loss, Sum{});
  square = block_reduce(square, Sum{});
  if (thread_index() == 0) {
    sums[0] += loss;
    sums[1] += square;
  }
}

KERNEL cross_entropy_gradient_kernel(float* logits, const std::int32_t* targets, std::int64_t first_id,
                                     const double* log_sum_exp, std::int64_t columns, double loss_scale,
                                     double z_scale) {
  const std::int64_t row = block_index(), own = targets[row] - first_id;
  const bool counted = targets[row] >= 0;
  float* p = logits + row * columns;
  const float shift = static_cast<float>(log_sum_exp[row]);
  const float factor = static_cast<float>(loss_scale + 2 * z_scale * log_sum_exp[row]);
  for (std::int64_t j = thread_index(); j < columns; j += block_size()) {
    const float gradient =
        factor * exponential(p[j] - shift) - (j == own ? static_cast<float>(loss_scale) : 0);
    p[j] = counted ? gradient : 0;
  }
}

}  // namespace conclave::DIALECT
