// Router statistics without routers, one optimizer step of them through Objectives, and the formulas that
// its results are compared with, written from the specification.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "framework/base/random.h"
#include "layers/moe/objectives.h"

namespace conclave::test {

inline constexpr std::int64_t experts = 6, top_k = 2, layers = 3;

/// One micro-batch of statistics as routers would leave them: every real token chooses two experts and has a
/// softmax.
struct MicroBatch {
  std::int64_t tokens = 0;
  std::vector<RouterStatistics> statistics;           // [layers]
  std::vector<Tensor> plain_counts;                   // [layers]; of the largest p, as if nothing else chose
  std::vector<std::vector<std::int64_t>> counts;      // [layers][experts]
  std::vector<std::vector<double>> probability_sums;  // [layers][experts]
  std::vector<double> z_sums;                         // [layers]
};

inline MicroBatch make_micro_batch(std::uint64_t seed, std::int64_t sequences,
                                   std::int64_t tokens_per_sequence) {
  MicroBatch made;
  made.tokens = sequences * tokens_per_sequence;
  Tape tape;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const RandomKey key = RandomKey(seed).with(static_cast<std::uint64_t>(layer));
    std::vector<std::int64_t> counts(static_cast<std::size_t>(sequences * experts)), total(experts);
    std::vector<std::int64_t> plain(counts.size());
    std::vector<double> sums(counts.size()), total_sums(experts);
    std::uint64_t draw = 0;
    for (std::int64_t t = 0; t < made.tokens; ++t) {
      const std::int64_t row = t / tokens_per_sequence;
      const auto first = static_cast<std::int64_t>(key.below(draw++, experts / 2 + seed % 3));
      const auto second = (first + 1 + static_cast<std::int64_t>(key.below(draw++, experts - 1))) % experts;
      double norm = 0;
      std::vector<double> p(experts);
      for (double& value : p) norm += value = std::exp(2 * key.normal(draw++));
      const auto best = std::max_element(p.begin(), p.end());
      for (const auto place :
           {best, std::max_element(p.begin(), p.end(), [&](const double&a, const double&b) {
              return (&a == &*best ? 0 : a) < (&b == &*best ? 0 : b);
            })})
        ++plain[static_cast<std::size_t>(row * experts + (place - p.begin()))];
      for (const std::int64_t chosen : {first, second}) {
        ++counts[static_cast<std::size_t>(row * experts + chosen)];
        ++total[static_cast<std::size_t>(chosen)];
      }
      for (std::size_t i = 0; i < p.size(); ++i) {
        sums[static_cast<std::size_t>(row * experts) + i] += p[i] / norm;
        total_sums[i] += p[i] / norm;
      }
    }
    const double z = 3.0 + static_cast<double>(layer) + static_cast<double>(seed);
    made.statistics.push_back({Tensor::from(counts, {sequences, experts}),
                               tape.output(Tensor::from(sums, {sequences, experts})),
                               tape.output(Tensor::from(std::vector<double>{z}, {1}))});
    made.plain_counts.push_back(Tensor::from(plain, {sequences, experts}));
    made.counts.push_back(total);
    made.probability_sums.push_back(total_sums);
    made.z_sums.push_back(z);
  }
  return made;
}

/// Runs the micro-batches of one step; returns the gradient that each left on its probability sums:
/// [micro-batches][layers][sequences * experts].
using Gradients = std::vector<std::vector<std::vector<double>>>;
inline Gradients run_step(Objectives& objectives, std::int64_t step, std::vector<MicroBatch>& micro_batches,
                          std::int64_t step_tokens, BalanceReport* report = nullptr,
                          double* objective = nullptr) {
  Objectives::Step loss = objectives.begin_step(step, step_tokens);
  if (loss.needs_counting_pass()) {
    for (const MicroBatch& micro : micro_batches) loss.count(micro.statistics);
    loss.finish_counting();
  }
  Gradients gradients;
  double sum = 0;
  for (MicroBatch& micro : micro_batches) {
    Tape tape;
    const Variable value = loss.begin_micro_step(micro.statistics).objective(tape);
    sum += value.value.item();
    tape.backward(value);
    gradients.emplace_back();
    for (const RouterStatistics& statistics : micro.statistics) {
      gradients.back().push_back(statistics.probability_sums.gradient.take().to_host<double>());
      statistics.z_sum.gradient.take();
    }
  }
  const BalanceReport made = loss.end();
  loss.keep();
  if (report != nullptr) *report = made;
  if (objective != nullptr) *objective = sum;
  return gradients;
}

inline std::vector<MicroBatch> uneven_step(std::uint64_t seed) {
  std::vector<MicroBatch> step;
  step.push_back(make_micro_batch(seed + 1, 2, 7));
  step.push_back(make_micro_batch(seed + 2, 1, 23));
  step.push_back(make_micro_batch(seed + 3, 3, 4));
  return step;
}

inline std::int64_t tokens_of(const std::vector<MicroBatch>& step) {
  std::int64_t tokens = 0;
  for (const MicroBatch& micro : step) tokens += micro.tokens;
  return tokens;
}

inline MoeRecipe recipe_with(BalanceScope scope, Estimator estimator,
                             LayerReduction reduction = LayerReduction::sum) {
  MoeRecipe moe;
  moe.num_experts = experts;
  moe.num_experts_per_tok = top_k;
  moe.layer_reduction = reduction;
  moe.router.z_loss_coefficient = 0.25;
  moe.balance = {{.scope = scope, .estimator = estimator, .coefficient = 0.5}};
  return moe;
}

/// f of micro-step m and layer, written from the specification: [experts], or [sequences, experts].
using Fractions = std::function<std::vector<double>(std::size_t m, std::size_t layer)>;

inline std::vector<double> normalised(const std::vector<std::int64_t>& counts, double assignments) {
  std::vector<double> f;
  for (const std::int64_t count : counts) f.push_back(static_cast<double>(count) / assignments);
  return f;
}

inline std::vector<std::int64_t> counts_up_to(const std::vector<MicroBatch>& step, std::size_t m,
                                              std::size_t layer) {
  std::vector<std::int64_t> counts(experts);
  for (std::size_t j = 0; j <= m; ++j)
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += step[j].counts[layer][i];
  return counts;
}

inline std::int64_t tokens_up_to(const std::vector<MicroBatch>& step, std::size_t m) {
  std::int64_t tokens = 0;
  for (std::size_t j = 0; j <= m; ++j) tokens += step[j].tokens;
  return tokens;
}

/// Largest difference between the gradients and coefficient * N / T * f.
inline double gradient_error(const Gradients& gradients, const std::vector<MicroBatch>& step, double factor,
                             const Fractions& f) {
  double worst = 0;
  for (std::size_t m = 0; m < gradients.size(); ++m)
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const std::vector<double> fractions = f(m, layer);
      for (std::size_t i = 0; i < gradients[m][layer].size(); ++i) {
        const double expected = factor * static_cast<double>(experts) / static_cast<double>(tokens_of(step)) *
                                fractions[i % fractions.size()];
        worst = std::max(worst, std::abs(gradients[m][layer][i] - expected));
      }
    }
  return worst;
}

}  // namespace conclave::test
