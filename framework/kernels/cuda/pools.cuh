// Pools of experts by document: a thread has one expert of one document and walks over its tokens, neighbours
// beside each other in memory.
#pragma once

#include <limits>

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/scalar_math.h"

namespace conclave::DIALECT {

KERNEL log_sum_exp_kernel(const float* logits, std::int64_t tokens, std::int64_t experts,
                          float* log_sum_exp) {
  const std::int64_t t = item_of_warp();
  if (t >= tokens) return;
  const float* own = logits + t * experts;
  float largest = -std::numeric_limits<float>::infinity(), sum = 0;
  for (std::int64_t e = lane_index(); e < experts; e += warp_size)
    largest = largest < own[e] ? own[e] : largest;
  largest = warp_reduce(largest, Maximum{});
  for (std::int64_t e = lane_index(); e < experts; e += warp_size) sum += exponential(own[e] - largest);
  sum = warp_reduce(sum, Sum{});
  if (lane_index() == 0) log_sum_exp[t] = largest + std::log(sum);
}

/// items: documents * experts.
KERNEL document_sums_kernel(const float* logits, const float* log_sum_exp, const std::int32_t* documents,
                            std::int64_t items, std::int64_t experts, double* sums) {
  const std::int64_t item = first_item();
  if (item >= items) return;
  const std::int32_t* document = documents + item / experts * 3;
  double sum = 0;
  for (std::int64_t t = document[0]; t < document[1]; ++t)
    sum += exponential(logits[t * experts + item % experts] - log_sum_exp[t]);
  sums[item] = sum;
}

KERNEL mask_outside_pools_kernel(const double* sums, const std::int32_t* documents, std::int64_t items,
                                 std::int64_t experts, float* logits) {
  constexpr int digits = std::numeric_limits<float>::digits / 2;
  const std::int64_t item = first_item(), expert = item % experts;
  if (item >= items) return;
  const std::int32_t* document = documents + item / experts * 3;
  const double *of_document = sums + item / experts * experts, own = rounded_to(sums[item], digits);
  std::int64_t better = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const double other = rounded_to(of_document[e], digits);
    better += other > own || (other == own && e < expert);
  }
  if (better < document[2]) return;
  for (std::int64_t t = document[0]; t < document[1]; ++t)
    logits[t * experts + expert] = -std::numeric_limits<float>::infinity();
}

}  // namespace conclave::DIALECT
