// Balance terms over groups of experts, DeepSeekMoE's device-level loss (arXiv 2401.06066, equations 15 to
// 17), against plain loops over the paper's own quantities. balance_layouts_test.cpp has them on layouts of
// ranks, transformer_test.cpp the gradient of every parameter.
#include <gtest/gtest.h>

#include "tests/layers/moe/balance_oracle.h"

namespace conclave {
namespace {

using namespace test;

MoeRecipe recipe_over(std::int64_t groups, BalanceScope scope, Estimator estimator = Estimator::exact) {
  MoeRecipe moe = recipe_with(scope, estimator);
  moe.router.z_loss_coefficient = 0;
  moe.balance[0].expert_groups = groups;
  return moe;
}

/// L_DevBal / a2 of one layer as the paper writes it, with T the tokens that are counted: f'_d the mean over
/// the group of f_i = N / (K T) count_i, P'_d the sum of its P_i, the mean over tokens of p_i.
double device_level_loss(const std::vector<std::int64_t>& counts, const std::vector<double>& probability_sums,
                         std::int64_t tokens, std::int64_t groups) {
  const std::int64_t members = experts / groups;
  double loss = 0;
  for (std::int64_t d = 0; d < groups; ++d) {
    double f = 0, p = 0;
    for (std::int64_t i = d * members; i < (d + 1) * members; ++i) {
      const auto at = static_cast<std::size_t>(i);
      f += static_cast<double>(experts * counts[at]) / static_cast<double>(top_k * tokens * members);
      p += probability_sums[at] / static_cast<double>(tokens);
    }
    loss += f * p;
  }
  return loss;
}

TEST(ExpertGroups, TheLossOfAWholeStepIsThePapers) {
  const auto self = self_communicator();
  for (const std::int64_t groups : {2, 3, 6}) {
    std::vector<MicroBatch> step = uneven_step(10);
    Objectives loss(recipe_over(groups, BalanceScope::global_batch), layers, *self);
    BalanceReport report;
    double objective = 0, expected = 0;
    run_step(loss, 0, step, tokens_of(step), &report, &objective);
    for (std::size_t layer = 0; layer < layers; ++layer) {
      std::vector<double> sums(experts);
      for (const MicroBatch& micro : step)
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += micro.probability_sums[layer][i];
      const double of_layer = device_level_loss(counts_up_to(step, 2, layer), sums, tokens_of(step), groups);
      EXPECT_NEAR(report.layer_balance_loss[layer], of_layer, 1e-14);
      expected += of_layer;
    }
    EXPECT_NEAR(objective, 0.5 * expected, 1e-13);
    EXPECT_NEAR(report.load_balance_loss, expected / layers, 1e-14);
    // This is the same whatever the terms: the loss over experts, which has another value here.
    if (groups < experts) {
      EXPECT_GT(std::abs(report.load_balance_loss - report.global_balance_loss), 1e-3);
    } else {
      EXPECT_NEAR(report.load_balance_loss, report.global_balance_loss, 1e-14);
    }
    EXPECT_LT(report.estimator_error, 1e-15);
  }
}

TEST(ExpertGroups, NarrowScopesAverageThePapersLossByTokens) {
  const auto self = self_communicator();
  for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro_batch}) {
    std::vector<MicroBatch> step = uneven_step(10);
    Objectives loss(recipe_over(3, scope), layers, *self);
    BalanceReport report;
    run_step(loss, 0, step, tokens_of(step), &report);
    for (std::size_t layer = 0; layer < layers; ++layer) {
      double expected = 0;
      for (const MicroBatch& micro : step) {
        const auto counts = micro.statistics[layer].counts.to_host<std::int64_t>();
        const auto sums = micro.statistics[layer].probability_sums.value.to_host<double>();
        const std::int64_t rows = scope == BalanceScope::sequence ? micro.statistics[layer].counts.dim(0) : 1,
                           tokens = micro.tokens / rows;
        for (std::int64_t row = 0; row < rows; ++row) {
          const auto begin = static_cast<std::ptrdiff_t>(row * experts);
          expected +=
              static_cast<double>(tokens) / static_cast<double>(tokens_of(step)) *
              (scope == BalanceScope::sequence
                   ? device_level_loss({counts.begin() + begin, counts.begin() + begin + experts},
                                       {sums.begin() + begin, sums.begin() + begin + experts}, tokens, 3)
                   : device_level_loss(micro.counts[layer], micro.probability_sums[layer], tokens, 3));
        }
      }
      EXPECT_NEAR(report.layer_balance_loss[layer], expected, 1e-14) << scope;
    }
  }
}

// The gradient against differences of the paper's loss, whose counts stay as they are.
TEST(ExpertGroups, TheGradientIsThatOfThePapersLoss) {
  const auto self = self_communicator();
  for (const std::int64_t groups : {2, 3}) {
    std::vector<MicroBatch> step = {make_micro_batch(4, 1, 29)};
    Objectives loss(recipe_over(groups, BalanceScope::micro_batch), layers, *self);
    const Gradients gradients = run_step(loss, 0, step, step[0].tokens);
    for (std::size_t layer = 0; layer < layers; ++layer)
      for (std::size_t i = 0; i < experts; ++i) {
        std::vector<double> above = step[0].probability_sums[layer], below = above;
        above[i] += 1e-3;
        below[i] -= 1e-3;
        const auto of = [&](const std::vector<double>& sums) {
          return 0.5 * device_level_loss(step[0].counts[layer], sums, step[0].tokens, groups);
        };
        EXPECT_NEAR(gradients[0][layer][i], (of(above) - of(below)) / 2e-3, 1e-12);
      }
  }
}

// All of a group's tokens on one of its members: the groups are even, and nothing pushes.
TEST(ExpertGroups, MembersAreFree) {
  const auto self = self_communicator();
  MicroBatch micro;
  micro.tokens = experts;
  Tape tape;
  std::vector<std::int64_t> counts(experts);
  counts[0] = counts[experts / 2] = experts * top_k / 2;
  for (std::int64_t layer = 0; layer < layers; ++layer)
    micro.statistics.push_back(
        {Tensor::from(counts, {1, experts}),
         tape.output(Tensor::from(std::vector<double>{1.5, 0.2, 0.1, 3.1, 0.6, 0.5}, {1, experts})),
         tape.output(Tensor::from(std::vector<double>{0.0}, {1}))});
  Objectives loss(recipe_over(2, BalanceScope::micro_batch), layers, *self);
  std::vector<MicroBatch> step{micro};
  BalanceReport report;
  const Gradients gradients = run_step(loss, 0, step, experts, &report);
  EXPECT_NEAR(report.load_balance_loss, 1, 1e-14);
  EXPECT_GT(report.global_balance_loss, 2);
  for (const double gradient : gradients[0][0]) EXPECT_NEAR(gradient, 0.5 / experts, 1e-15);
}

TEST(ExpertGroups, ActBesideTermsOverExpertsAndOnlyInTheirSteps) {
  const auto self = self_communicator();
  MoeRecipe moe = recipe_over(0, BalanceScope::global_batch);
  moe.balance.push_back({.scope = BalanceScope::global_batch,
                         .estimator = Estimator::exact,
                         .coefficient = 0.125,
                         .first_step = 5,
                         .expert_groups = 2});
  std::vector<MicroBatch> step = uneven_step(10);
  for (const std::int64_t at : {4, 5}) {
    Objectives loss(moe, layers, *self);
    const Fractions both = [&](std::size_t, std::size_t layer) {
      std::vector<double> f =
          normalised(counts_up_to(step, 2, layer), static_cast<double>(top_k * tokens_of(step)));
      const double first = f[0] + f[1] + f[2], second = f[3] + f[4] + f[5];
      for (std::size_t i = 0; i < f.size(); ++i) f[i] += at < 5 ? 0 : 0.25 * (i < 3 ? first : second) / 3;
      return f;
    };
    EXPECT_LT(gradient_error(run_step(loss, at, step, tokens_of(step)), step, 0.5, both), 1e-15) << at;
  }
}

TEST(ExpertGroups, MustDivideTheExperts) {
  const auto self = self_communicator();
  EXPECT_THROW(Objectives(recipe_over(4, BalanceScope::sequence), layers, *self), Error);
  EXPECT_THROW(Objectives(recipe_over(-2, BalanceScope::sequence), layers, *self), Error);
}

}  // namespace
}  // namespace conclave
