// The balance loss against direct evaluations of its formula. planted_balance_mistakes_test.cpp shows that
// such comparisons see the mistakes that other implementations make.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/layers/moe/balance_oracle.h"

namespace conclave {
namespace {

using namespace test;

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
  for (const LayerReduction reduction : {LayerReduction::sum, LayerReduction::mean}) {
    const double factor = reduction == LayerReduction::sum ? 0.5 : 0.5 / layers;
    Objectives micro_loss(recipe_with(BalanceScope::micro_batch, Estimator::warm, reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(micro_loss, 0, step_, tokens_of(step_)), step_, factor, micro()),
              1e-15);
    Objectives exact_loss(recipe_with(BalanceScope::global_batch, Estimator::exact, reduction), layers,
                          *self_);
    EXPECT_LT(gradient_error(run_step(exact_loss, 0, step_, tokens_of(step_)), step_, factor, exact()),
              1e-15);
    Objectives running_loss(recipe_with(BalanceScope::global_batch, Estimator::running, reduction), layers,
                            *self_);
    EXPECT_LT(gradient_error(run_step(running_loss, 0, step_, tokens_of(step_)), step_, factor, running()),
              1e-15);
  }
}

TEST_F(Balance, WarmFillsTheUnseenPartWithThePreviousStep) {
  Objectives loss(recipe_with(BalanceScope::global_batch, Estimator::warm), layers, *self_);
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

TEST_F(Balance, LaggedTakesThePreviousStepOrPushesNowhere) {
  Objectives loss(recipe_with(BalanceScope::global_batch, Estimator::lagged), layers, *self_);
  const Fractions even = [](std::size_t, std::size_t) { return std::vector<double>(experts, 1.0 / experts); };
  BalanceReport report;
  EXPECT_LT(gradient_error(run_step(loss, 0, step_, tokens_of(step_), &report), step_, 0.5, even), 1e-15);
  EXPECT_NEAR(report.load_balance_loss, 1.0, 1e-14);
  EXPECT_GT(report.estimator_error, 0.01);
  const std::vector<MicroBatch> first = step_;
  step_ = uneven_step(20);
  const Fractions lagged = [&](std::size_t, std::size_t layer) {
    return normalised(counts_up_to(first, 2, layer), static_cast<double>(top_k * tokens_of(first)));
  };
  EXPECT_LT(gradient_error(run_step(loss, 1, step_, tokens_of(step_)), step_, 0.5, lagged), 1e-15);
}

TEST_F(Balance, ReportsTheLossItsLayersAndTheEstimatorsError) {
  Objectives loss(recipe_with(BalanceScope::global_batch, Estimator::running), layers, *self_);
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
  EXPECT_NEAR(report.other("router_z_loss"), z / layers, 1e-14);
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
  for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro_batch,
                                   BalanceScope::data_parallel, BalanceScope::global_batch})
    for (const std::int64_t groups : {0, 2, 3, 6}) {
      MoeRecipe moe = recipe_with(scope, Estimator::running);
      moe.balance[0].expert_groups = groups;
      Objectives loss(moe, layers, *self_);
      std::vector<MicroBatch> step{micro};
      BalanceReport report;
      run_step(loss, 0, step, experts, &report);
      EXPECT_NEAR(report.load_balance_loss, 1.0, 1e-14);
      EXPECT_NEAR(report.global_balance_loss, 1.0, 1e-14);
      EXPECT_NEAR(report.max_load_violation, 0.0, 1e-14);
    }
}

TEST_F(Balance, TermsActTogetherAndOnlyInTheirSteps) {
  MoeRecipe moe = recipe_with(BalanceScope::global_batch, Estimator::exact);
  moe.balance.push_back(
      {.scope = BalanceScope::micro_batch, .coefficient = 0.125, .first_step = 5, .last_step = 6});
  for (const std::int64_t step : {4, 5, 6, 7}) {
    Objectives loss(moe, layers, *self_);
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
  Objectives loss(recipe_with(BalanceScope::global_batch, Estimator::running), layers, *self_);
  std::vector<MicroBatch> step;
  std::vector<std::int64_t> expected(static_cast<std::size_t>(layers * experts));
  for (std::uint64_t m = 0; m < 1000; ++m) {
    step.push_back(make_micro_batch(m, 1, 5 + static_cast<std::int64_t>(m % 3)));
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] += step.back().counts[i / experts][i % experts];
  }
  BalanceReport report;
  run_step(loss, 0, step, tokens_of(step), &report);
  EXPECT_EQ(report.counts, expected);
}

}  // namespace
}  // namespace conclave
