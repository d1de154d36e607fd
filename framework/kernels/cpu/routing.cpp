// Router scores, top-k choice and the statistics of the balance and z losses.
// With p = softmax(a), a = s or log sigmoid(s), and L = logsumexp(s): dp_i/da_j = p_i ([i = j] - p_j),
// da_j/ds_j = 1 or 1 - sigmoid(s_j), d(L^2)/ds_j = 2 L softmax(s)_j. A renormalised weight w_j = c p_j / P
// with P the sum of the chosen has dw_m/dp_j = ([m = j] c - w_m) / P; for the sigmoid, too, because p differs
// from it by a factor that cancels. Without renormalisation w_j = c q_j, and dq_j/ds_j = q_j (1 - q_j).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "framework/kernels/check_route.h"
#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/softmax.h"
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

/// log sigmoid(x), without overflow on either side.
template <class T>
T log_sigmoid(T x) {
  return std::min(x, T(0)) - std::log1p(std::exp(-std::abs(x)));
}

/// Leaves the experts of the best groups in the running: the scores of all others become -infinity.
void keep_best_groups(std::vector<double>& scores, const RouteRule& rule) {
  const auto size = static_cast<std::int64_t>(scores.size()) / rule.groups;
  const std::int64_t counted = std::min<std::int64_t>(rule.score == RouteRule::Score::sigmoid ? 2 : 1, size);
  std::vector<double> of_group(static_cast<std::size_t>(rule.groups));
  std::vector<std::int32_t> best(static_cast<std::size_t>(std::max(counted, rule.chosen_groups)));
  for (std::int64_t group = 0; group < rule.groups; ++group) {
    select_top_k(scores.data() + group * size, size, counted, best.data());
    for (std::int64_t i = 0; i < counted; ++i)
      of_group[static_cast<std::size_t>(group)] +=
          scores[static_cast<std::size_t>(group * size + best[static_cast<std::size_t>(i)])];
  }
  select_top_k(of_group.data(), rule.groups, rule.chosen_groups, best.data());
  for (std::int64_t group = 0; group < rule.groups; ++group)
    if (std::find(best.begin(), best.begin() + rule.chosen_groups, group) ==
        best.begin() + rule.chosen_groups)
      std::fill_n(scores.begin() + group * size, size, -std::numeric_limits<double>::infinity());
}

/// The router of one token at a time, with its scratch memory.
template <class T>
class TokenRouter {
 public:
  TokenRouter(const RouteRule& rule, std::int64_t experts, std::int64_t top_k)
      : rule_(rule),
        experts_(experts),
        top_k_(top_k),
        sigmoid_(rule.score == RouteRule::Score::sigmoid),
        by_score_(rule.selection_bias.defined() || (sigmoid_ && rule.groups > 1)),
        log_scores_(sigmoid_ ? static_cast<std::size_t>(experts) : 0),
        selection_(by_score_ || rule.groups > 1 ? static_cast<std::size_t>(experts) : 0) {}

  /// logits, p [experts]; weights, chosen [top_k]. Returns logsumexp(logits).
  T route(const T* logits, T* p, T* weights, std::int32_t* chosen) {
    const T log_sum_exp = score(logits, p);
    if (rule_.choice == RouteRule::Choice::best) {
      select(logits, p, chosen);
      for (std::int64_t j = 1; j < top_k_; ++j)
        if (logits[chosen[j]] == -std::numeric_limits<T>::infinity()) chosen[j] = -1;
    }
    T total = rule_.renormalise ? T(0) : T(1);
    for (std::int64_t j = 0; j < top_k_; ++j) {
      weights[j] = 0;
      if (chosen[j] < 0) continue;
      weights[j] = rule_.renormalise ? p[chosen[j]] : score_of(p, chosen[j]);
      if (rule_.renormalise) total += weights[j];
    }
    const T factor = static_cast<T>(rule_.scale) / total;
    for (std::int64_t j = 0; j < top_k_; ++j) weights[j] *= factor;
    return log_sum_exp;
  }

 private:
  T score(const T* logits, T* p) {
    if (!sigmoid_) return softmax(logits, experts_, p);
    const T log_sum_exp = softmax(logits, experts_, p);
    for (std::int64_t i = 0; i < experts_; ++i)
      log_scores_[static_cast<std::size_t>(i)] = log_sigmoid(logits[i]);
    softmax(log_scores_.data(), experts_, p);
    return log_sum_exp;
  }

  T score_of(const T* p, std::int64_t i) const {
    return sigmoid_ ? std::exp(log_scores_[static_cast<std::size_t>(i)]) : p[i];
  }

  void select(const T* logits, const T* p, std::int32_t* chosen) {
    // By logit where its order is the score's: the score may round two different logits to one number.
    if (selection_.empty()) return select_top_k(logits, experts_, top_k_, chosen);
    const double* bias = rule_.selection_bias.defined() ? rule_.selection_bias.data<double>() : nullptr;
    for (std::int64_t i = 0; i < experts_; ++i) {
      const bool out = logits[i] == -std::numeric_limits<T>::infinity();
      selection_[static_cast<std::size_t>(i)] =
          static_cast<double>(by_score_ && !out ? score_of(p, i) : logits[i]) +
          (bias != nullptr ? bias[i] : 0.0);
    }
    if (rule_.chosen_groups < rule_.groups) keep_best_groups(selection_, rule_);
    select_top_k(selection_.data(), experts_, top_k_, chosen);
  }

  const RouteRule& rule_;
  std::int64_t experts_, top_k_;
  bool sigmoid_, by_score_;  // by_score_: the choice needs scores, logits do not do
  std::vector<T> log_scores_;
  std::vector<double> selection_;
};

void route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule, const RouteResult& result) {
  const std::int64_t count = logits.dim(0), experts = logits.dim(1), top_k = result.experts.dim(1);
  const std::int64_t sequences = result.counts.dim(0), length = result.length, shift = result.first_token;
  check_route(logits, tokens, rule, result);
  result.counts.fill_zero();
  result.probability_sums.fill_zero();
  std::vector<double> z_of_sequence(static_cast<std::size_t>(sequences));
  with_float_type(logits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = logits.data<T>();
    const std::int32_t* token = tokens.data<std::int32_t>();
#pragma omp parallel if (sequences > 1)
    {
      TokenRouter<T> router(rule, experts, top_k);
      // One thread per sequence: its statistics are summed in token order.
#pragma omp for schedule(dynamic, 1)
      for (std::int64_t s = 0; s < sequences; ++s) {
        std::int64_t* counts = result.counts.data<std::int64_t>() + s * experts;
        double* sums = result.probability_sums.data<double>() + s * experts;
        const std::int64_t first = std::max<std::int64_t>(s * length - shift, 0);
        const std::int64_t last = std::min((s + 1) * length - shift, count);
        for (std::int64_t t = first; t < last; ++t) {
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
          const T log_sum_exp = router.route(in + t * experts, p, weights, chosen);
          result.log_sum_exp.data<T>()[t] = log_sum_exp;
          z_of_sequence[static_cast<std::size_t>(s)] +=
              static_cast<double>(log_sum_exp) * static_cast<double>(log_sum_exp);
#pragma omp simd
          for (std::int64_t i = 0; i < experts; ++i) sums[i] += static_cast<double>(p[i]);
          for (std::int64_t j = 0; j < top_k; ++j)
            if (chosen[j] >= 0) ++counts[chosen[j]];
        }
      }
    }
  });
  double z = 0;
  for (const double part : z_of_sequence) z += part;
  *result.z_sum.data<double>() = z;
}

void route_backward(const RouteResult& result, const RouteRule& rule, const Tensor& logits,
                    const Tensor& dweights, const Tensor& dprobability_sums, const Tensor& dz_sum,
                    const Tensor& dlogits) {
  check_tensor(dz_sum, "route_backward", "dz_sum", {1}, DType::float64);
  const double dz = *dz_sum.data<double>();
  const std::int64_t count = dlogits.dim(0), experts = dlogits.dim(1), top_k = result.experts.dim(1);
  const bool sigmoid = rule.score == RouteRule::Score::sigmoid;
  with_float_type(dlogits.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T scale = static_cast<T>(rule.scale);
#pragma omp parallel
    {
      std::vector<T> dp_of_token(static_cast<std::size_t>(experts));
      T* dp = dp_of_token.data();
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
        for (std::int64_t i = 0; i < experts; ++i) dp[i] = static_cast<T>(dsum[i]);
        if (rule.renormalise) {
          T total = 0, pull = 0;
          for (std::int64_t j = 0; j < top_k; ++j) {
            if (chosen[j] < 0) continue;
            total += p[chosen[j]];
            pull += dw[j] * w[j];
          }
          for (std::int64_t j = 0; j < top_k; ++j)
            if (chosen[j] >= 0) dp[chosen[j]] += (scale * dw[j] - pull) / total;
        } else if (!sigmoid) {
          for (std::int64_t j = 0; j < top_k; ++j)
            if (chosen[j] >= 0) dp[chosen[j]] += scale * dw[j];
        }
        T dot = 0;
        for (std::int64_t i = 0; i < experts; ++i) dot += dp[i] * p[i];
        const T log_sum_exp = result.log_sum_exp.data<T>()[t], z = static_cast<T>(2 * dz) * log_sum_exp;
        if (!sigmoid) {
          for (std::int64_t i = 0; i < experts; ++i) ds[i] = p[i] * (dp[i] - dot + z);
          continue;
        }
        const T* s = logits.data<T>() + t * experts;
        const auto complement = [&](std::int64_t i) { return std::exp(log_sigmoid(-s[i])); };
        for (std::int64_t i = 0; i < experts; ++i)
          ds[i] = p[i] * (dp[i] - dot) * complement(i) + z * std::exp(s[i] - log_sum_exp);
        if (!rule.renormalise)
          for (std::int64_t j = 0; j < top_k; ++j)
            if (chosen[j] >= 0)
              ds[chosen[j]] += scale * dw[j] * std::exp(log_sigmoid(s[chosen[j]])) * complement(chosen[j]);
      }
    }
  });
}

}  // namespace

void cpu::put_routing(Kernels& kernels) {
  kernels.route = route;
  kernels.route_backward = route_backward;
}

}  // namespace conclave
