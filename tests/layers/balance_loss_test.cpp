// The balance loss against direct evaluations of its formula. planted_balance_mistakes_test.cpp shows that
// such comparisons see the mistakes that other implementations make.
#include <gtest/gtest.h>

#include <deque>
#include <thread>

#include "tests/layers/balance_oracle.h"
#include "tests/layers/thread_communicator.h"

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
  for (const std::string reduction : {"sum", "mean"}) {
    const double factor = reduction == "sum" ? 0.5 : 0.5 / layers;
    BalanceLoss micro_loss(recipe_with("micro_batch", "warm", reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(micro_loss, 0, step_, tokens_of(step_)), step_, factor, micro()),
              1e-15);
    BalanceLoss exact_loss(recipe_with("global_batch", "exact", reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(exact_loss, 0, step_, tokens_of(step_)), step_, factor, exact()),
              1e-15);
    BalanceLoss running_loss(recipe_with("global_batch", "running", reduction), layers, *self_);
    EXPECT_LT(gradient_error(run_step(running_loss, 0, step_, tokens_of(step_)), step_, factor, running()),
              1e-15);
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

TEST_F(Balance, LaggedTakesThePreviousStepOrPushesNowhere) {
  BalanceLoss loss(recipe_with("global_batch", "lagged"), layers, *self_);
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
  for (const std::string scope : {"sequence", "micro_batch", "data_parallel", "global_batch"}) {
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
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] += step.back().counts[i / experts][i % experts];
  }
  BalanceReport report;
  run_step(loss, 0, step, tokens_of(step), &report);
  EXPECT_EQ(report.counts, expected);
}

// A step of eight uneven sequences cut over replicas, tensor ranks and micro-batches. A scope is written as
// the specification says it: which positions of the step are balanced together.
struct Layout {
  std::int64_t replicas, tensor, micro;
  std::int64_t micro_steps() const { return 8 / (replicas * micro); }
};
const std::vector<Layout> all_layouts = {{1, 1, 8}, {1, 1, 2}, {2, 1, 1}, {2, 1, 4}, {4, 1, 2},
                                         {1, 4, 4}, {2, 2, 2}, {4, 2, 1}, {2, 3, 1}};
using Together = std::function<bool(std::int64_t, std::int64_t)>;
struct WeightedScope {
  double coefficient;
  Together together;
};

std::vector<MicroBatch> eight_sequences() {
  std::vector<MicroBatch> step;
  for (const std::int64_t tokens : {7, 23, 4, 11, 0, 16, 9, 5})
    step.push_back(make_micro_batch(50 + step.size(), 1, tokens));
  return step;
}

/// What rank t of the tensor ranks sees of some sequences: a part of every count and of every sum.
std::vector<RouterStatistics> share_of(const std::vector<MicroBatch>& step, std::int64_t first,
                                       const Layout& layout, std::int64_t t) {
  Tape tape;
  std::vector<RouterStatistics> statistics;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    std::vector<std::int64_t> counts;
    std::vector<double> sums;
    for (std::int64_t position = first; position < first + layout.micro; ++position)
      for (std::size_t i = 0; i < experts; ++i) {
        const MicroBatch& sequence = step[static_cast<std::size_t>(position)];
        const std::int64_t count = sequence.counts[layer][i];
        counts.push_back(count * (t + 1) / layout.tensor - count * t / layout.tensor);
        sums.push_back(sequence.probability_sums[layer][i] / static_cast<double>(layout.tensor));
      }
    statistics.push_back({Tensor::from(counts, {layout.micro, experts}),
                          tape.output(Tensor::from(sums, {layout.micro, experts})),
                          tape.output(Tensor::from(std::vector<double>{0.0}, {1}))});
  }
  return statistics;
}

struct Outcome {
  double gradient_error = 0, loss_error = 0;           // the largest
  std::int64_t calls_of_all = 0, calls_of_tensor = 0;  // all-reduces of a rank in the step
};

Outcome run_layout(const MoeRecipe& moe, const Layout& layout, const std::vector<WeightedScope>& scopes) {
  const std::vector<MicroBatch> step = eight_sequences();
  const double all = static_cast<double>(tokens_of(step));
  const auto fraction = [&](const Together& together, std::int64_t position, std::size_t layer,
                            std::size_t expert) {
    double count = 0, tokens = 0;
    for (std::int64_t other = 0; other < 8; ++other)
      if (together(position, other)) {
        count += static_cast<double>(step[static_cast<std::size_t>(other)].counts[layer][expert]);
        tokens += static_cast<double>(step[static_cast<std::size_t>(other)].tokens);
      }
    return tokens > 0 ? count / (top_k * tokens) : 0;
  };
  double loss = 0;  // of the first term
  for (std::int64_t position = 0; position < 8; ++position)
    for (std::size_t i = 0; i < layers * experts; ++i)
      loss += experts / all * fraction(scopes[0].together, position, i / experts, i % experts) *
              step[static_cast<std::size_t>(position)].probability_sums[i / experts][i % experts] / layers;

  ThreadGroup everyone(static_cast<int>(layout.replicas * layout.tensor), sum);
  std::deque<ThreadGroup> tensor_groups;
  for (std::int64_t r = 0; r < layout.replicas; ++r)
    tensor_groups.emplace_back(static_cast<int>(layout.tensor), sum);
  std::vector<Outcome> outcomes(static_cast<std::size_t>(layout.replicas * layout.tensor));
  const auto run_rank = [&](std::int64_t r, std::int64_t t) {
    Outcome& outcome = outcomes[static_cast<std::size_t>(r * layout.tensor + t)];
    ThreadCommunicator everyone_here(everyone, static_cast<int>(r * layout.tensor + t));
    ThreadCommunicator tensor(tensor_groups[static_cast<std::size_t>(r)], static_cast<int>(t));
    BalanceLoss balance(moe, layers, everyone_here, &tensor);
    balance.begin_step(0, tokens_of(step),
                       {.replica = r,
                        .replicas = layout.replicas,
                        .micro_batch_size = layout.micro,
                        .micro_steps = layout.micro_steps()});
    const auto first_of = [&](std::int64_t m) { return (m * layout.replicas + r) * layout.micro; };
    if (balance.needs_counting_pass()) {
      for (std::int64_t m = 0; m < layout.micro_steps(); ++m)
        balance.count(share_of(step, first_of(m), layout, t));
      balance.finish_counting();
    }
    for (std::int64_t m = 0; m < layout.micro_steps(); ++m) {
      Tape tape;
      std::vector<RouterStatistics> statistics = share_of(step, first_of(m), layout, t);
      tape.backward(balance.objective(tape, statistics));
      for (std::size_t layer = 0; layer < layers; ++layer) {
        const Numbers gradient = statistics[layer].probability_sums.gradient.take().to_host<double>();
        for (std::size_t i = 0; i < gradient.size(); ++i) {
          double expected = 0;
          for (const WeightedScope& scope : scopes)
            expected += scope.coefficient * experts / all *
                        fraction(scope.together, first_of(m) + static_cast<std::int64_t>(i / experts), layer,
                                 i % experts);
          outcome.gradient_error = std::max(outcome.gradient_error, std::abs(gradient[i] - expected));
        }
      }
    }
    outcome.loss_error = std::abs(balance.end_step().load_balance_loss - loss);
    outcome.calls_of_all = everyone_here.traffic()[Purpose::statistics].calls;
    outcome.calls_of_tensor = tensor.traffic()[Purpose::statistics].calls;
  };
  std::vector<std::jthread> threads;
  for (std::int64_t r = 0; r < layout.replicas; ++r)
    for (std::int64_t t = 0; t < layout.tensor; ++t) threads.emplace_back(run_rank, r, t);
  threads.clear();  // joins
  Outcome worst = outcomes[0];
  for (const Outcome& outcome : outcomes) {
    worst.gradient_error = std::max(worst.gradient_error, outcome.gradient_error);
    worst.loss_error = std::max(worst.loss_error, outcome.loss_error);
    EXPECT_EQ(outcome.calls_of_all, worst.calls_of_all);
    EXPECT_EQ(outcome.calls_of_tensor, worst.calls_of_tensor);
  }
  return worst;
}

Together same_part(std::int64_t size) {
  return [size](std::int64_t a, std::int64_t b) { return a / size == b / size; };
}

TEST(BalanceOnLayouts, EachScopeGivesItsFormulaWithTheFewestCalls) {
  for (const Layout& layout : all_layouts) {
    struct Case {
      BalanceRecipe term;
      Together together;
      std::int64_t of_all;  // all-reduces over all ranks beside the report's two
      bool of_tensor;       // one per micro-step over the ranks that share a micro-batch
    };
    const std::int64_t steps = layout.micro_steps(), micro = layout.micro;
    std::vector<Case> cases = {
        {{.scope = "sequence"}, same_part(1), 0, true},
        {{.scope = "micro_batch"}, same_part(micro), 0, true},
        // Its counts are the report's too.
        {{.scope = "data_parallel"}, same_part(layout.replicas * micro), steps - 1, false},
        {{.scope = "global_batch", .estimator = "exact"}, same_part(8), 1, false}};
    for (const std::int64_t group : {1, 2, 4, 8}) {
      const bool local = micro % group == 0;
      cases.push_back(
          {{.scope = "group", .balance_batch_size = group}, same_part(group), local ? 0 : 1, local});
    }
    for (const Case& one : cases) {
      SCOPED_TRACE(join_text(one.term.scope, " ", one.term.balance_batch_size, ", replicas ", layout.replicas,
                             ", tensor ", layout.tensor, ", micro-batches of ", micro));
      MoeRecipe moe = recipe_with("micro_batch", "exact");
      moe.balance = {one.term};
      const Outcome outcome = run_layout(moe, layout, {{one.term.coefficient, one.together}});
      EXPECT_LT(outcome.gradient_error, 1e-15);
      EXPECT_LT(outcome.loss_error, 1e-13);
      EXPECT_EQ(outcome.calls_of_all, 2 + one.of_all);
      EXPECT_EQ(outcome.calls_of_tensor, one.of_tensor && layout.tensor > 1 ? steps : 0);
    }
  }
}

TEST(BalanceOnLayouts, AllScopesAtOnceShareTheirCalls) {
  for (const Layout& layout : all_layouts) {
    SCOPED_TRACE(join_text("replicas ", layout.replicas, ", tensor ", layout.tensor, ", micro-batches of ",
                           layout.micro));
    const std::int64_t steps = layout.micro_steps(), wide = layout.replicas * layout.micro;
    MoeRecipe moe = recipe_with("sequence", "exact");
    moe.balance = {{.scope = "sequence", .coefficient = 0.5},
                   {.scope = "micro_batch", .coefficient = 0.25},
                   {.scope = "data_parallel", .coefficient = 0.125},
                   {.scope = "group", .coefficient = 0.75, .balance_batch_size = 2},
                   {.scope = "group", .coefficient = 0.375, .balance_batch_size = 4},
                   {.scope = "global_batch", .estimator = "exact", .coefficient = 1}};
    const Outcome outcome = run_layout(moe, layout,
                                       {{0.5, same_part(1)},
                                        {0.25, same_part(layout.micro)},
                                        {0.125, same_part(wide)},
                                        {0.75, same_part(2)},
                                        {0.375, same_part(4)},
                                        {1, same_part(8)}});
    EXPECT_LT(outcome.gradient_error, 1e-14);
    EXPECT_LT(outcome.loss_error, 1e-13);
    // The counting pass, each micro-step, and the sums of the report.
    EXPECT_EQ(outcome.calls_of_all, 1 + steps + 1);
    EXPECT_EQ(outcome.calls_of_tensor, layout.tensor > 1 ? steps : 0);
    // Running and data_parallel read the same counts.
    moe.balance = {{.scope = "data_parallel"}, {.scope = "global_batch", .estimator = "running"}};
    if (steps == 1) {
      EXPECT_LT(run_layout(moe, layout, {{0.01, same_part(8)}, {0.01, same_part(8)}}).gradient_error, 1e-15);
    }
    EXPECT_EQ(run_layout(moe, layout, {{0.01, same_part(wide)}}).calls_of_all, steps + 1);
  }
}

TEST(BalanceOnLayouts, LaggedNeedsNoCallBesideTheReport) {
  for (const Layout& layout : all_layouts) {
    MoeRecipe moe = recipe_with("global_batch", "lagged");
    EXPECT_EQ(run_layout(moe, layout, {{0.5, same_part(8)}}).calls_of_all, 2);
  }
}

TEST(BalanceOnLayouts, SeesGroupsThatAreCutAtTheWrongPlaces) {
  MoeRecipe moe = recipe_with("group", "exact");
  moe.balance[0].balance_batch_size = 2;
  EXPECT_LT(run_layout(moe, {2, 1, 1}, {{0.5, same_part(2)}}).gradient_error, 1e-15);
  for (const Together& wrong : {same_part(1), same_part(4), same_part(8),
                                Together([](std::int64_t a, std::int64_t b) { return a % 4 == b % 4; })})
    EXPECT_GT(run_layout(moe, {2, 1, 1}, {{0.5, wrong}}).gradient_error, 1e-4);
}

}  // namespace
}  // namespace conclave
