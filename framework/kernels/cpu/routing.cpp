// Router softmax, top-k choice and the statistics of the balance and z losses.
// With p = softmax(s), L = logsumexp(s): dp_i/ds_j = p_i ([i = j] - p_j), d(L^2)/ds_j = 2 L p_j. A
// renormalised weight w_j = p_j / P with P the sum of the chosen has dw_m/dp_j = ([m = j] - w_m) / P.
#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {
namespace {

/// Indices of the top_k largest values, descending; of equal ones the lower index first.
template <class T>
void select_top_k(const T* values, std::int64_t count, std::int64_t top_k, std::int32_t* chosen) {
  std::int64_t held = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (held == top_k && values[i] <= values[chosen[held - 1]]) continue;
    std::int64_t place = held < top_k ? held++ : held - 1;
    for (; place > 0 && values[i] > values[chosen[place - 1]]; --place) chosen[place] = chosen[place - 1];
    chosen[place] = static_cast<std::int32_t>(i);
  }
}

}  // namespace

void CpuKernels::route(const Tensor& logits, const Tensor& tokens, bool renormalise,
                       const RouteResult& result) const {
  const std::int64_t count = logits.dim(0), experts = logits.dim(1), top_k = result.experts.dim(1);
  const std::int64_t sequences = result.counts.dim(0), length = result.length, shift = result.first_token;
  check(top_k <= experts && shift + count <= sequences * length, "route: top_k ", top_k, " of ", experts,
        " experts for ", count, " tokens from token ", shift, " of ", sequences, " sequences of ", length,
        " cannot be");
  check_tensor(tokens, "route", "tokens", {count}, DType::int32);
  check_tensor(result.probability_sums, "route", "probability_sums", {sequences, experts}, DType::float64);
  result.counts.fill_zero();
  result.probability_sums.fill_zero();
  std::vector<double> z_of_sequence(static_cast<std::size_t>(sequences));
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = logits.data<T>();
    const std::int32_t* token = tokens.data<std::int32_t>();
    // One thread per sequence: its statistics are summed in token order.
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t s = 0; s < sequences; ++s) {
      std::int64_t* counts = result.counts.data<std::int64_t>() + s * experts;
      double* sums = result.probability_sums.data<double>() + s * experts;
      const std::int64_t first = std::max<std::int64_t>(s * length - shift, 0);
      const std::int64_t last = std::min((s + 1) * length - shift, count);
      for (std::int64_t t = first; t < last; ++t) {
        const T* logit = in + t * experts;
        T* p = result.probabilities.data<T>() + t * experts;
        T* weights = result.weights.data<T>() + t * top_k;
        std::int32_t* chosen = result.experts.data<std::int32_t>() + t * top_k;
        if (token[t] < 0) {
          std::fill_n(p, experts, T(0));
          std::fill_n(weights, top_k, T(0));
          std::fill_n(chosen, top_k, -1);
          result.log_sum_exp.data<T>()[t] = 0;
          continue;
        }
        T largest = logit[0];
        for (std::int64_t i = 1; i < experts; ++i) largest = std::max(largest, logit[i]);
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < experts; ++i) {
          p[i] = exponential(logit[i] - largest);
          sum += p[i];
        }
        const T inverse = T(1) / sum;
#pragma omp simd
        for (std::int64_t i = 0; i < experts; ++i) {
          p[i] *= inverse;
          sums[i] += static_cast<double>(p[i]);
        }
        const T log_sum_exp = largest + std::log(sum);
        result.log_sum_exp.data<T>()[t] = log_sum_exp;
        z_of_sequence[static_cast<std::size_t>(s)] +=
            static_cast<double>(log_sum_exp) * static_cast<double>(log_sum_exp);
        // Choose by logit: the softmax may round two different logits to one probability.
        select_top_k(logit, experts, top_k, chosen);
        T total = 0;
        for (std::int64_t j = 0; j < top_k; ++j) {
          weights[j] = p[chosen[j]];
          total += weights[j];
          ++counts[chosen[j]];
        }
        if (renormalise)
          for (std::int64_t j = 0; j < top_k; ++j) weights[j] /= total;
      }
    }
  });
  double z = 0;
  for (const double part : z_of_sequence) z += part;
  *result.z_sum.data<double>() = z;
}

void CpuKernels::route_backward(const RouteResult& result, bool renormalise, const Tensor& dweights,
                                const Tensor& dprobability_sums, double dz_sum, const Tensor& dlogits) const {
  const std::int64_t count = dlogits.dim(0), experts = dlogits.dim(1), top_k = result.experts.dim(1);
  with_float_type(dlogits.dtype(), [&](auto zero) {
    using T = decltype(zero);
#pragma omp parallel
    {
      std::vector<T> dp(static_cast<std::size_t>(experts));
#pragma omp for
      for (std::int64_t t = 0; t < count; ++t) {
        const std::int32_t* chosen = result.experts.data<std::int32_t>() + t * top_k;
        const T* p = result.probabilities.data<T>() + t * experts;
        const T* w = result.weights.data<T>() + t * top_k;
        const T* dw = dweights.data<T>() + t * top_k;
        const double* dsum =
            dprobability_sums.data<double>() + ((result.first_token + t) / result.length) * experts;
        T* ds = dlogits.data<T>() + t * experts;
        if (chosen[0] < 0) {
          std::fill_n(ds, experts, T(0));
          continue;
        }
        for (std::int64_t i = 0; i < experts; ++i) dp[static_cast<std::size_t>(i)] = static_cast<T>(dsum[i]);
        T total = 1, pull = 0;
        if (renormalise) {
          total = 0;
          for (std::int64_t j = 0; j < top_k; ++j) {
            total += p[chosen[j]];
            pull += dw[j] * w[j];
          }
        }
        for (std::int64_t j = 0; j < top_k; ++j)
          dp[static_cast<std::size_t>(chosen[j])] += (dw[j] - pull) / total;
        T dot = 0;
        for (std::int64_t i = 0; i < experts; ++i) dot += dp[static_cast<std::size_t>(i)] * p[i];
        const T z = static_cast<T>(2 * dz_sum) * result.log_sum_exp.data<T>()[t];
        for (std::int64_t i = 0; i < experts; ++i) ds[i] = p[i] * (dp[static_cast<std::size_t>(i)] - dot + z);
      }
    }
  });
}

}  // namespace conclave
