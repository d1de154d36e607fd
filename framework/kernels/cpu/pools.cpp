// Pools of experts by document: sums of probabilities, and logits outside of the pool masked.
#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "framework/base/total_order.h"
#include "framework/kernels/check_route.h"
#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/softmax.h"

namespace conclave {
namespace {

/// Indices of all values in the order of their first digits, descending; of equal ones the lower index first.
/// A total order, also where training has gone wrong and sums are no numbers.
void order_by_size(const double* values, int digits, std::vector<double>& rounded,
                   std::vector<std::int32_t>& order) {
  for (std::size_t i = 0; i < order.size(); ++i) rounded[i] = rounded_to(values[i], digits);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const auto by_value =
        total_order(rounded[static_cast<std::size_t>(a)], rounded[static_cast<std::size_t>(b)]);
    return by_value != 0 ? by_value > 0 : a < b;
  });
}

void sum_over_documents(const Tensor& logits, const Tensor& documents, const Tensor& sums) {
  check_documents(logits, documents, sums);
  const std::int64_t count = documents.dim(0), experts = logits.dim(1);
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel
    {
      std::vector<T> of_token(static_cast<std::size_t>(experts));
      T* p = of_token.data();
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t d = 0; d < count; ++d) {
        const std::int32_t* document = documents.data<std::int32_t>() + 3 * d;
        double* sum = sums.data<double>() + d * experts;
        std::fill_n(sum, experts, 0.0);
        for (std::int64_t t = document[0]; t < document[1]; ++t) {
          softmax(logits.data<T>() + t * experts, experts, p);
#pragma omp simd
          for (std::int64_t i = 0; i < experts; ++i) sum[i] += static_cast<double>(p[i]);
        }
      }
    }
  });
}

void mask_outside_pools(const Tensor& documents, const Tensor& sums, const Tensor& logits) {
  check_documents(logits, documents, sums);
  const std::int64_t count = documents.dim(0), experts = logits.dim(1);
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel
    {
      std::vector<double> rounded(static_cast<std::size_t>(experts));
      std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t d = 0; d < count; ++d) {
        const std::int32_t* document = documents.data<std::int32_t>() + 3 * d;
        order_by_size(sums.data<double>() + d * experts, std::numeric_limits<T>::digits / 2, rounded, order);
        for (std::int64_t t = document[0]; t < document[1]; ++t)
          for (std::int64_t place = document[2]; place < experts; ++place)
            logits.data<T>()[t * experts + order[static_cast<std::size_t>(place)]] =
                -std::numeric_limits<T>::infinity();
      }
    }
  });
}

}  // namespace

void cpu::put_pools(Kernels& kernels) {
  kernels.sum_over_documents = sum_over_documents;
  kernels.mask_outside_pools = mask_outside_pools;
}

}  // namespace conclave
