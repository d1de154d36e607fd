// The balance loss of one step cut over replicas, tensor ranks and micro-batches: every scope gives the
// gradient and the loss of its formula on every layout, with the fewest collective calls. Threads stand for
// ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "tests/layers/moe/balance_oracle.h"
#include "tests/layers/moe/thread_communicator.h"

namespace conclave {
namespace {

using namespace test;

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
  std::int64_t expert_groups = experts;  // of consecutive ones, evened as one each
};

std::vector<MicroBatch> eight_sequences() {
  std::vector<MicroBatch> step;
  for (const std::int64_t tokens : {7, 23, 4, 11, 0, 16, 9, 5})
    step.push_back(make_micro_batch(50 + step.size(), 1, tokens));
  return step;
}

/// The share of some sequences that rank t of the tensor ranks sees: a part of every count and of every sum.
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
  bool counting_pass = false;
};

Outcome run_layout(const MoeRecipe& moe, const Layout& layout, const std::vector<WeightedScope>& scopes) {
  const std::vector<MicroBatch> step = eight_sequences();
  const double all = static_cast<double>(tokens_of(step));
  const auto fraction = [&](const WeightedScope& scope, std::int64_t position, std::size_t layer,
                            std::size_t expert) {
    const auto members = static_cast<std::size_t>(experts / scope.expert_groups);
    double count = 0, tokens = 0;
    for (std::int64_t other = 0; other < 8; ++other)
      if (scope.together(position, other)) {
        for (std::size_t i = 0; i < experts; ++i)
          if (i / members == expert / members)
            count += static_cast<double>(step[static_cast<std::size_t>(other)].counts[layer][i]);
        tokens += static_cast<double>(step[static_cast<std::size_t>(other)].tokens);
      }
    return tokens > 0 ? count / static_cast<double>(members) / (top_k * tokens) : 0;
  };
  double loss = 0;  // of the first term
  for (std::int64_t position = 0; position < 8; ++position)
    for (std::size_t i = 0; i < layers * experts; ++i)
      loss += experts / all * fraction(scopes[0], position, i / experts, i % experts) *
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
    Objectives objectives(moe, layers, everyone_here, &tensor);
    Objectives::Step balance = objectives.begin_step(0, tokens_of(step),
                                                     {.replica = r,
                                                      .replicas = layout.replicas,
                                                      .micro_batch_size = layout.micro,
                                                      .micro_steps = layout.micro_steps()});
    const auto first_of = [&](std::int64_t m) { return (m * layout.replicas + r) * layout.micro; };
    if (balance.needs_counting_pass()) {
      outcome.counting_pass = true;
      for (std::int64_t m = 0; m < layout.micro_steps(); ++m)
        balance.count(share_of(step, first_of(m), layout, t));
      balance.finish_counting();
    }
    for (std::int64_t m = 0; m < layout.micro_steps(); ++m) {
      Tape tape;
      std::vector<RouterStatistics> statistics = share_of(step, first_of(m), layout, t);
      tape.backward(balance.begin_micro_step(statistics).objective(tape));
      for (std::size_t layer = 0; layer < layers; ++layer) {
        const Numbers gradient = statistics[layer].probability_sums.gradient.take().to_host<double>();
        for (std::size_t i = 0; i < gradient.size(); ++i) {
          double expected = 0;
          for (const WeightedScope& scope : scopes)
            expected +=
                scope.coefficient * experts / all *
                fraction(scope, first_of(m) + static_cast<std::int64_t>(i / experts), layer, i % experts);
          outcome.gradient_error = std::max(outcome.gradient_error, std::abs(gradient[i] - expected));
        }
      }
    }
    outcome.loss_error = std::abs(balance.end().load_balance_loss - loss);
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
        {{.scope = BalanceScope::sequence}, same_part(1), 0, true},
        {{.scope = BalanceScope::micro_batch}, same_part(micro), 0, true},
        // Its counts are the report's too.
        {{.scope = BalanceScope::data_parallel}, same_part(layout.replicas * micro), steps - 1, false},
        // With one micro-step its counts are the report's, and no pass goes ahead.
        {{.scope = BalanceScope::global_batch, .estimator = Estimator::exact},
         same_part(8),
         steps == 1 ? 0 : 1,
         false}};
    for (const std::int64_t group : {1, 2, 4, 8}) {
      const bool local = micro % group == 0;
      const bool within_micro_step = steps == 1 || layout.replicas * micro % group == 0;
      cases.push_back({{.scope = BalanceScope::group, .balance_batch_size = group},
                       same_part(group),
                       local               ? 0
                       : within_micro_step ? steps
                                           : 1,
                       local});
    }
    for (const Case& one : cases) {
      SCOPED_TRACE(join_text(one.term.scope, " ", one.term.balance_batch_size, ", replicas ", layout.replicas,
                             ", tensor ", layout.tensor, ", micro-batches of ", micro));
      MoeRecipe moe = recipe_with(BalanceScope::micro_batch, Estimator::exact);
      moe.balance = {one.term};
      const Outcome outcome = run_layout(moe, layout, {{one.term.coefficient, one.together}});
      EXPECT_LT(outcome.gradient_error, 1e-15);
      EXPECT_LT(outcome.loss_error, 1e-13);
      EXPECT_EQ(outcome.calls_of_all, 2 + one.of_all);
      EXPECT_TRUE(!outcome.counting_pass || steps > 1);
      EXPECT_EQ(outcome.calls_of_tensor, one.of_tensor && layout.tensor > 1 ? steps : 0);
    }
  }
}

TEST(BalanceOnLayouts, GroupsOfExpertsGiveTheirFormulaAndNeedNoMoreCalls) {
  for (const Layout& layout : all_layouts)
    for (const std::int64_t groups : {2, 3}) {
      SCOPED_TRACE(join_text(groups, " groups, replicas ", layout.replicas, ", tensor ", layout.tensor,
                             ", micro-batches of ", layout.micro));
      MoeRecipe moe = recipe_with(BalanceScope::sequence, Estimator::exact), of_experts = moe;
      moe.balance = {
          {.scope = BalanceScope::group,
           .coefficient = 0.5,
           .balance_batch_size = 4,
           .expert_groups = groups},
          {.scope = BalanceScope::sequence, .coefficient = 0.25, .expert_groups = 5 - groups},
          {.scope = BalanceScope::data_parallel, .coefficient = 0.125, .expert_groups = groups},
          {.scope = BalanceScope::global_batch, .estimator = Estimator::exact, .expert_groups = groups},
          {.scope = BalanceScope::global_batch, .estimator = Estimator::exact, .coefficient = 1}};
      of_experts.balance = moe.balance;
      for (BalanceRecipe& term : of_experts.balance) term.expert_groups = 0;
      const std::int64_t wide = layout.replicas * layout.micro;
      const Outcome outcome = run_layout(moe, layout,
                                         {{0.5, same_part(4), groups},
                                          {0.25, same_part(1), 5 - groups},
                                          {0.125, same_part(wide), groups},
                                          {0.01, same_part(8), groups},
                                          {1, same_part(8)}});
      EXPECT_LT(outcome.gradient_error, 1e-14);
      EXPECT_LT(outcome.loss_error, 1e-13);
      const Outcome without = run_layout(of_experts, layout, {{1, same_part(4)}});
      EXPECT_GT(without.gradient_error, 1e-4);  // the formulas differ here
      EXPECT_EQ(outcome.calls_of_all, without.calls_of_all);
      EXPECT_EQ(outcome.calls_of_tensor, without.calls_of_tensor);
    }
}

TEST(BalanceOnLayouts, AllScopesAtOnceShareTheirCalls) {
  for (const Layout& layout : all_layouts) {
    SCOPED_TRACE(join_text("replicas ", layout.replicas, ", tensor ", layout.tensor, ", micro-batches of ",
                           layout.micro));
    const std::int64_t steps = layout.micro_steps(), wide = layout.replicas * layout.micro;
    MoeRecipe moe = recipe_with(BalanceScope::sequence, Estimator::exact);
    moe.balance = {{.scope = BalanceScope::sequence, .coefficient = 0.5},
                   {.scope = BalanceScope::micro_batch, .coefficient = 0.25},
                   {.scope = BalanceScope::data_parallel, .coefficient = 0.125},
                   {.scope = BalanceScope::group, .coefficient = 0.75, .balance_batch_size = 2},
                   {.scope = BalanceScope::group, .coefficient = 0.375, .balance_batch_size = 4},
                   {.scope = BalanceScope::global_batch, .estimator = Estimator::exact, .coefficient = 1}};
    const Outcome outcome = run_layout(moe, layout,
                                       {{0.5, same_part(1)},
                                        {0.25, same_part(layout.micro)},
                                        {0.125, same_part(wide)},
                                        {0.75, same_part(2)},
                                        {0.375, same_part(4)},
                                        {1, same_part(8)}});
    EXPECT_LT(outcome.gradient_error, 1e-14);
    EXPECT_LT(outcome.loss_error, 1e-13);
    // The counting pass if there is one, each micro-step, and the sums of the report.
    EXPECT_EQ(outcome.calls_of_all, (steps > 1 ? 1 : 0) + steps + 1);
    EXPECT_EQ(outcome.calls_of_tensor, layout.tensor > 1 ? steps : 0);
    // Running and data_parallel read the same counts.
    moe.balance = {{.scope = BalanceScope::data_parallel},
                   {.scope = BalanceScope::global_batch, .estimator = Estimator::running}};
    if (steps == 1) {
      EXPECT_LT(run_layout(moe, layout, {{0.01, same_part(8)}, {0.01, same_part(8)}}).gradient_error, 1e-15);
    }
    EXPECT_EQ(run_layout(moe, layout, {{0.01, same_part(wide)}}).calls_of_all, steps + 1);
  }
}

TEST(BalanceOnLayouts, LaggedNeedsNoCallBesideTheReport) {
  for (const Layout& layout : all_layouts) {
    MoeRecipe moe = recipe_with(BalanceScope::global_batch, Estimator::lagged);
    EXPECT_EQ(run_layout(moe, layout, {{0.5, same_part(8)}}).calls_of_all, 2);
  }
}

TEST(BalanceOnLayouts, SeesGroupsThatAreCutAtTheWrongPlaces) {
  MoeRecipe moe = recipe_with(BalanceScope::group, Estimator::exact);
  moe.balance[0].balance_batch_size = 2;
  EXPECT_LT(run_layout(moe, {2, 1, 1}, {{0.5, same_part(2)}}).gradient_error, 1e-15);
  for (const Together& wrong : {same_part(1), same_part(4), same_part(8),
                                Together([](std::int64_t a, std::int64_t b) { return a % 4 == b % 4; })})
    EXPECT_GT(run_layout(moe, {2, 1, 1}, {{0.5, wrong}}).gradient_error, 1e-4);
}

}  // namespace
}  // namespace conclave
