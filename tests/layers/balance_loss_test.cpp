// The balance loss against direct evaluations of its formula, and the mistakes that other implementations make: each
// is put in on purpose and must be seen by the same comparison.
#include "layers/balance_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "framework/base/random.h"

namespace conclave {
namespace {

constexpr std::int64_t experts = 6, top_k = 2, layers = 3;

/// One micro-batch of statistics as routers would leave them: every real token chooses two experts and has a softmax.
struct MicroBatch {
  std::int64_t tokens = 0;
  std::vector<RouterStatistics> statistics;          // [layers]
  std::vector<std::vector<std::int64_t>> counts;     // [layers][experts]
  std::vector<std::vector<double>> probability_sums; // [layers][experts]
  std::vector<double> z_sums;                        // [layers]
};

MicroBatch make_micro_batch(std::uint64_t seed, std::int64_t sequences, std::int64_t tokens_per_sequence) {
  MicroBatch made;
  made.tokens = sequences * tokens_per_sequence;
  Tape tape;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const RandomKey key = RandomKey(seed).with(static_cast<std::uint64_t>(layer));
    std::vector<std::int64_t> counts(static_cast<std::size_t>(sequences * experts)), total(experts);
    std::vector<double> sums(counts.size()), total_sums(experts);
    std::uint64_t draw = 0;
    for (std::int64_t t = 0; t < made.tokens; ++t) {
      const std::int64_t row = t / tokens_per_sequence;
      const auto first = static_cast<std::int64_t>(key.below(draw++, experts / 2 + seed % 3));
      const auto second = (first + 1 + static_cast<std::int64_t>(key.below(draw++, experts - 1))) % experts;
      double norm = 0;
      std::vector<double> p(experts);
      for (double& value : p) norm += value = std::exp(2 * key.normal(draw++));
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
    made.counts.push_back(total);
    made.probability_sums.push_back(total_sums);
    made.z_sums.push_back(z);
  }
  return made;
}

/// Runs the micro-batches of one step; returns the gradient that each left on its probability sums:
/// [micro-batches][layers][sequences * experts].
using Gradients = std::vector<std::vector<std::vector<double>>>;
Gradients run_step(BalanceLoss& loss, std::int64_t step, std::vector<MicroBatch>& micro_batches,
                   std::int64_t step_tokens, BalanceReport* report = nullptr, double* objective = nullptr) {
  loss.begin_step(step, step_tokens);
  if (loss.needs_counting_pass()) {
    for (const MicroBatch& micro : micro_batches) loss.count(micro.statistics);
    loss.finish_counting();
  }
  Gradients gradients;
  double sum = 0;
  for (MicroBatch& micro : micro_batches) {
    Tape tape;
    const Variable value = loss.objective(tape, micro.statistics);
    sum += value.value.item();
    tape.backward(value);
    gradients.emplace_back();
    for (const RouterStatistics& statistics : micro.statistics) {
      gradients.back().push_back(statistics.probability_sums.gradient.take().to_host<double>());
      statistics.z_sum.gradient.take();
    }
  }
  const BalanceReport made = loss.end_step();
  if (report != nullptr) *report = made;
  if (objective != nullptr) *objective = sum;
  return gradients;
}

std::vector<MicroBatch> uneven_step(std::uint64_t seed) {
  std::vector<MicroBatch> step;
  step.push_back(make_micro_batch(seed + 1, 2, 7));
  step.push_back(make_micro_batch(seed + 2, 1, 23));
  step.push_back(make_micro_batch(seed + 3, 3, 4));
  return step;
}

std::int64_t tokens_of(const std::vector<MicroBatch>& step) {
  std::int64_t tokens = 0;
  for (const MicroBatch& micro : step) tokens += micro.tokens;
  return tokens;
}

MoeRecipe recipe_with(const std::string& scope, const std::string& estimator, const std::string& reduction = "sum") {
  MoeRecipe moe;
  moe.num_experts = experts;
  moe.num_experts_per_tok = top_k;
  moe.layer_reduction = reduction;
  moe.router.z_loss_coefficient = 0.25;
  moe.balance = {{.scope = scope, .estimator = estimator, .coefficient = 0.5}};
  return moe;
}

/// f of micro-step m and layer, written from the specification.
using Fractions = std::function<std::vector<double>(std::size_t m, std::size_t layer)>;

std::vector<double> normalised(const std::vector<std::int64_t>& counts, double assignments) {
  std::vector<double> f;
  for (const std::int64_t count : counts) f.push_back(static_cast<double>(count) / assignments);
  return f;
}

std::vector<std::int64_t> counts_up_to(const std::vector<MicroBatch>& step, std::size_t m, std::size_t layer) {
  std::vector<std::int64_t> counts(experts);
  for (std::size_t j = 0; j <= m; ++j)
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += step[j].counts[layer][i];
  return counts;
}

std::int64_t tokens_up_to(const std::vector<MicroBatch>& step, std::size_t m) {
  std::int64_t tokens = 0;
  for (std::size_t j = 0; j <= m; ++j) tokens += step[j].tokens;
  return tokens;
}

/// Largest difference between the gradients and coefficient * N / T * f.
double gradient_error(const Gradients& gradients, const std::vector<MicroBatch>& step, double factor,
                      const Fractions& f) {
  double worst = 0;
  for (std::size_t m = 0; m < gradients.size(); ++m)
    for (std::size_t layer = 0; layer < layers; ++layer) {
      const std::vector<double> fractions = f(m, layer);
      for (std::size_t i = 0; i < gradients[m][layer].size(); ++i) {
        const double expected =
            factor * static_cast<double>(experts) / static_cast<double>(tokens_of(step)) * fractions[i % experts];
        worst = std::max(worst, std::abs(gradients[m][layer][i] - expected));
      }
    }
  return worst;
}

class Balance : public testing::Test {
 protected:
  std::shared_ptr<Communicator> self_ = self_communicator();
  std::vector<MicroBatch> step_ = uneven_step(10);

  Fractions micro() const {
    return [this](std::size_t m, std::size_t layer) {
      return normalised(step_[m].counts[layer], static_cast<double>(top_k * step_[m].tokens));
    };
  }
  Fractions exact() const {
    return [this](std::size_t, std::size_t layer) {
      return normalised(counts_up_to(step_, 2, layer), static_cast<double>(top_k * tokens_of(step_)));
    };
  }
  Fractions running() const {
    return [this](std::size_t m, std::size_t layer) {
      return normalised(counts_up_to(step_, m, layer), static_cast<double>(top_k * tokens_up_to(step_, m)));
    };
  }
};

TEST_F(Balance, EachScopeAndEstimatorGivesItsFormula) {
  for (const std::string reduction : {"sum", "mean"}) {
    const double factor = reduction == "sum" ? 0.5 : 0.5 / layers;
    BalanceLoss micro_loss(recipe_with("micro_batch", "warm", reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(micro_loss, 0, step_, tokens_of(step_)), step_, factor, micro()), 1e-15);
    BalanceLoss exact_loss(recipe_with("global_batch", "exact", reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(exact_loss, 0, step_, tokens_of(step_)), step_, factor, exact()), 1e-15);
    BalanceLoss running_loss(recipe_with("global_batch", "running", reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(running_loss, 0, step_, tokens_of(step_)), step_, factor, running()), 1e-15);
  }
}

TEST_F(Balance, WarmFillsTheUnseenPartWithThePreviousStep) {
  BalanceLoss loss(recipe_with("global_batch", "warm"), layers, *self_);
  // The first step has no previous one: running.
  EXPECT_LT(gradient_error(run_step(loss, 0, step_, tokens_of(step_)), step_, 0.5, running()), 1e-15);
  const std::vector<MicroBatch> first = step_;
  step_ = uneven_step(20);
  const double all = static_cast<double>(tokens_of(step_));
  const Fractions warm = [&](std::size_t m, std::size_t layer) {
    const auto seen = counts_up_to(step_, m, layer), before = counts_up_to(first, 2, layer);
    std::vector<double> f(experts);
    for (std::size_t i = 0; i < f.size(); ++i)
      f[i] = (static_cast<double>(seen[i]) / top_k + (all - static_cast<double>(tokens_up_to(step_, m))) *
                                                         static_cast<double>(before[i]) /
                                                         static_cast<double>(top_k * tokens_of(first))) /
             all;
    return f;
  };
  EXPECT_LT(gradient_error(run_step(loss, 1, step_, tokens_of(step_)), step_, 0.5, warm), 1e-15);
}

TEST_F(Balance, ReportsTheLossItsLayersAndTheEstimatorsError) {
  BalanceLoss loss(recipe_with("global_batch", "running"), layers, *self_);
  BalanceReport report;
  double objective = 0;
  run_step(loss, 0, step_, tokens_of(step_), &report, &objective);
  double expected_objective = 0, mean = 0, z = 0, error = 0;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    double value = 0;
    for (std::size_t m = 0; m < step_.size(); ++m) {
      const auto f = running()(m, layer), end = exact()(m, layer);
      double distance = 0;
      for (std::size_t i = 0; i < experts; ++i) {
        value += experts / static_cast<double>(tokens_of(step_)) * f[i] * step_[m].probability_sums[layer][i];
        distance += std::abs(f[i] - end[i]);
      }
      error = std::max(error, distance);
      z += step_[m].z_sums[layer] / static_cast<double>(tokens_of(step_));
    }
    EXPECT_NEAR(report.layer_balance_loss[layer], value, 1e-14);
    mean += value / layers;
    expected_objective += 0.5 * value;
  }
  expected_objective += 0.25 * z;
  EXPECT_NEAR(report.load_balance_loss, mean, 1e-14);
  EXPECT_NEAR(report.router_z_loss, z / layers, 1e-14);
  EXPECT_NEAR(objective, expected_objective, 1e-13);
  EXPECT_NEAR(report.estimator_error, error, 1e-14);
  EXPECT_GT(report.estimator_error, 0.01);
}

TEST_F(Balance, IsOneUnderUniformRouting) {
  MicroBatch micro;
  micro.tokens = experts;
  Tape tape;
  for (std::int64_t layer = 0; layer < layers; ++layer)
    micro.statistics.push_back({Tensor::from(std::vector<std::int64_t>(experts, top_k), {1, experts}),
                                tape.output(Tensor::from(std::vector<double>(experts, 1.0), {1, experts})),
                                tape.output(Tensor::from(std::vector<double>{0.0}, {1}))});
  for (const std::string scope : {"micro_batch", "global_batch"}) {
    BalanceLoss loss(recipe_with(scope, "running"), layers, *self_);
    std::vector<MicroBatch> step{micro};
    BalanceReport report;
    run_step(loss, 0, step, experts, &report);
    EXPECT_NEAR(report.load_balance_loss, 1.0, 1e-14);
    EXPECT_NEAR(report.global_balance_loss, 1.0, 1e-14);
    EXPECT_NEAR(report.max_load_violation, 0.0, 1e-14);
  }
}

TEST_F(Balance, TermsActTogetherAndOnlyInTheirSteps) {
  MoeRecipe moe = recipe_with("global_batch", "exact");
  moe.balance.push_back({.scope = "micro_batch", .coefficient = 0.125, .first_step = 5, .last_step = 6});
  for (const std::int64_t step : {4, 5, 6, 7}) {
    BalanceLoss loss(moe, layers, *self_);
    const Fractions both = [&](std::size_t m, std::size_t layer) {
      auto f = exact()(m, layer);
      const auto add = micro()(m, layer);
      for (std::size_t i = 0; i < f.size(); ++i) f[i] += step == 5 || step == 6 ? 0.25 * add[i] : 0.0;
      return f;
    };
    EXPECT_LT(gradient_error(run_step(loss, step, step_, tokens_of(step_)), step_, 0.5, both), 1e-15) << step;
  }
}

TEST_F(Balance, AThousandMicroBatchesKeepExactCounts) {
  BalanceLoss loss(recipe_with("global_batch", "running"), layers, *self_);
  std::vector<MicroBatch> step;
  std::vector<std::int64_t> expected(static_cast<std::size_t>(layers * experts));
  for (std::uint64_t m = 0; m < 1000; ++m) {
    step.push_back(make_micro_batch(m, 1, 5 + static_cast<std::int64_t>(m % 3)));
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += step.back().counts[i / experts][i % experts];
  }
  BalanceReport report;
  run_step(loss, 0, step, tokens_of(step), &report);
  EXPECT_EQ(report.counts, expected);
}

// Tests of the tests: what others compute instead, compared in the same way, is far off.
TEST_F(Balance, SeesTheKnownMistakes) {
  BalanceLoss loss(recipe_with("global_batch", "exact"), layers, *self_);
  const Gradients right = run_step(loss, 0, step_, tokens_of(step_));
  // 1. gradient scaled by 1 / (data-parallel ranks)
  Gradients scaled = right;
  for (auto& micro : scaled)
    for (auto& layer : micro)
      for (double& value : layer) value /= 2;
  EXPECT_GT(gradient_error(scaled, step_, 0.5, exact()), 1e-3);
  // 2. the denominator of the current micro-batch
  const Fractions own_denominator = [&](std::size_t m, std::size_t layer) {
    auto f = exact()(m, layer);
    for (double& value : f) value *= static_cast<double>(tokens_of(step_)) / (3.0 * static_cast<double>(step_[m].tokens));
    return f;
  };
  EXPECT_GT(gradient_error(right, step_, 0.5, own_denominator), 1e-3);
  // 3. local counts where global ones belong (an aliased in-place reduction shows the same)
  EXPECT_GT(gradient_error(right, step_, 0.5, micro()), 1e-3);
  // 5. counting twice (recomputation) is invisible in f of one micro-batch, but not in the running buffer
  const Fractions counted_twice = [&](std::size_t m, std::size_t layer) {
    auto counts = counts_up_to(step_, 2, layer);
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += step_[m].counts[layer][i];
    return normalised(counts, static_cast<double>(top_k * (tokens_of(step_) + step_[m].tokens)));
  };
  EXPECT_GT(gradient_error(right, step_, 0.5, counted_twice), 1e-3);
}

}  // namespace
}  // namespace conclave
