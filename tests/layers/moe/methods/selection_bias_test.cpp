// The selection bias: its signs over every scope and layout of threads that stand for ranks, its move, and
// that it does what it is for.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "layers/moe/methods.h"
#include "layers/moe/methods/selection_bias.h"
#include "tests/layers/moe/balance_oracle.h"
#include "tests/layers/moe/thread_communicator.h"

namespace conclave {
namespace {

using namespace test;

TEST(SelectionBias, SignsAreThoseOfTheMeanLoadLessTheLoad) {
  // Two sets of two layers; the second set of the second layer is empty, as is that of the first.
  const ExpertCounts::Counts counts = {5, 1, 3, /**/ 0, 0, 0, /**/ 2, 2, 2, /**/ 0, 0, 0};
  std::vector<double> sums(6);
  EXPECT_EQ(add_load_signs(counts, 2, 3, sums), 1);
  EXPECT_EQ(sums, (std::vector<double>{-1, 1, 0, 0, 0, 0}));
}

TEST(SelectionBias, MovesByItsRateAndRecentres) {
  const Tensor bias = Tensor::from(std::vector<double>{0.5, 0, -0.5, 0, 0, 0}, {2, 3});
  move_selection_bias(bias, {1, -1, 0.5, 1, 1, -1}, {.rate = 0.1});
  EXPECT_EQ(bias.to_host<double>(), (std::vector<double>{0.5 + 0.1, -0.1, -0.5 + 0.1 * 0.5, 0.1, 0.1, -0.1}));
  move_selection_bias(bias, {0, 0, 0, 0, 0, 0}, {.rate = 0.1, .recentre = true});
  const std::vector<double> centred = bias.to_host<double>();
  EXPECT_NEAR(centred[0] + centred[1] + centred[2], 0, 1e-15);
  EXPECT_NEAR(centred[3] - centred[5], 0.2, 1e-15);
}

struct Layout {
  std::int64_t replicas, tensor, micro;
};

/// Signs of a step of eight sequences, every rank's; and how many collective calls it took.
std::vector<std::vector<double>> signs_on(const Layout& layout, BiasScope scope,
                                          const std::vector<MicroBatch>& step, std::int64_t* calls) {
  MoeRecipe moe = recipe_with(BalanceScope::global_batch, Estimator::lagged);
  moe.router.bias = {.rate = 1, .scope = scope};
  const std::int64_t ranks = layout.replicas * layout.tensor;
  ThreadGroup everyone(static_cast<int>(ranks), sum);
  std::deque<ThreadGroup> tensor_groups;
  for (std::int64_t r = 0; r < layout.replicas; ++r)
    tensor_groups.emplace_back(static_cast<int>(layout.tensor), sum);
  std::vector<std::vector<double>> signs(static_cast<std::size_t>(ranks));
  const auto run_rank = [&](std::int64_t r, std::int64_t t) {
    ThreadCommunicator all(everyone, static_cast<int>(r * layout.tensor + t));
    ThreadCommunicator tensor(tensor_groups[static_cast<std::size_t>(r)], static_cast<int>(t));
    // From zero and with a rate of 1, a step moves the bias by its signs.
    ModelRecipe model;
    model.num_hidden_layers = layers;
    model.moe = moe;
    MethodStates states = make_states(model, cpu_device());
    Objectives objectives(moe, layers, all, &tensor, 0, states);
    const std::int64_t micro_steps = 8 / (layout.replicas * layout.micro);
    Objectives::Step balance = objectives.begin_step(0, tokens_of(step),
                                                     {.replica = r,
                                                      .replicas = layout.replicas,
                                                      .micro_batch_size = layout.micro,
                                                      .micro_steps = micro_steps});
    for (std::int64_t m = 0; m < micro_steps; ++m) {
      Tape tape;
      std::vector<RouterStatistics> statistics;
      for (std::size_t layer = 0; layer < layers; ++layer) {
        std::vector<std::int64_t> counts;
        for (std::int64_t b = 0; b < layout.micro; ++b)
          for (const std::int64_t count :
               step[static_cast<std::size_t>((m * layout.replicas + r) * layout.micro + b)].counts[layer])
            counts.push_back(count * (t + 1) / layout.tensor - count * t / layout.tensor);
        statistics.push_back({Tensor::from(counts, {layout.micro, experts}),
                              tape.output(Tensor::zeros({layout.micro, experts}, DType::float64)),
                              tape.output(Tensor::zeros({1}, DType::float64))});
      }
      tape.backward(balance.begin_micro_step(statistics).objective(tape));
    }
    balance.end();
    balance.keep();
    signs[static_cast<std::size_t>(r * layout.tensor + t)] = states.of(selection_bias_name).to_host<double>();
    if (r == 0 && t == 0) *calls = all.traffic()[Purpose::statistics].calls;
  };
  std::vector<std::jthread> threads;
  for (std::int64_t r = 0; r < layout.replicas; ++r)
    for (std::int64_t t = 0; t < layout.tensor; ++t) threads.emplace_back(run_rank, r, t);
  threads.clear();  // joins
  return signs;
}

TEST(SelectionBias, FollowsTheLoadOfItsScopeOnEveryLayout) {
  std::vector<MicroBatch> step;
  for (const std::int64_t tokens : {7, 23, 4, 11, 0, 16, 9, 5})
    step.push_back(make_micro_batch(50 + step.size(), 1, tokens));
  for (const Layout& layout : {Layout{1, 1, 8}, Layout{1, 1, 2}, Layout{2, 1, 1}, Layout{4, 1, 2},
                               Layout{1, 2, 4}, Layout{2, 2, 2}, Layout{2, 3, 1}})
    for (const BiasScope scope :
         {BiasScope::sequence, BiasScope::micro_batch, BiasScope::data_parallel, BiasScope::global_batch}) {
      SCOPED_TRACE(join_text(scope, ", replicas ", layout.replicas, ", tensor ", layout.tensor,
                             ", micro-batches of ", layout.micro));
      const std::int64_t size = scope == BiasScope::sequence        ? 1
                                : scope == BiasScope::micro_batch   ? layout.micro
                                : scope == BiasScope::data_parallel ? layout.micro * layout.replicas
                                                                    : 8;
      std::vector<double> expected(static_cast<std::size_t>(layers * experts));
      std::int64_t sets = 0;
      for (std::int64_t first = 0; first < 8; first += size) {
        std::int64_t tokens = 0;
        for (std::int64_t s = first; s < first + size; ++s)
          tokens += step[static_cast<std::size_t>(s)].tokens;
        if (tokens == 0) continue;
        ++sets;
        for (std::size_t i = 0; i < expected.size(); ++i) {
          std::int64_t load = 0;
          for (std::int64_t s = first; s < first + size; ++s)
            load += step[static_cast<std::size_t>(s)].counts[i / experts][i % experts];
          const double mean = static_cast<double>(tokens * top_k) / experts;
          expected[i] += mean > static_cast<double>(load) ? 1 : mean < static_cast<double>(load) ? -1 : 0;
        }
      }
      for (double& sign : expected) sign /= static_cast<double>(sets);
      std::int64_t calls = 0;
      for (const std::vector<double>& signs : signs_on(layout, scope, step, &calls)) {
        ASSERT_EQ(signs.size(), expected.size());
        for (std::size_t i = 0; i < signs.size(); ++i) EXPECT_NEAR(signs[i], expected[i], 1e-15);
      }
      // The report's two calls; data_parallel hears of all ranks at each micro-step instead of at the end.
      EXPECT_EQ(calls, scope == BiasScope::data_parallel ? 8 / (layout.replicas * layout.micro) + 1 : 2);
    }
}

// A router that prefers one expert, with nothing but the bias against it: the load becomes even.
TEST(SelectionBias, EvensTheLoadOfALopsidedRouter) {
  const std::int64_t tokens = 400;
  std::vector<double> logits;
  const RandomKey key = RandomKey(5).with("logits");
  for (std::int64_t i = 0; i < tokens * experts; ++i)
    logits.push_back(key.normal(static_cast<std::uint64_t>(i)) + (i % experts == 2 ? 1.5 : 0));
  for (const auto score : {RouteRule::Score::softmax, RouteRule::Score::sigmoid}) {
    const Tensor bias = Tensor::zeros({1, experts}, DType::float64);
    const auto counts_of_step = [&] {
      Tape tape(Tape::Mode::forward_only);
      return route(tape, tape.output(Tensor::from(logits, {tokens, experts})),
                   Tensor::zeros({tokens}, DType::int32),
                   {.top_k = top_k, .rule = {.score = score, .selection_bias = bias.view({experts})}})
          .statistics.counts.to_host<std::int64_t>();
    };
    const auto most_over_mean = [](const std::vector<std::int64_t>& counts) {
      return static_cast<double>(*std::max_element(counts.begin(), counts.end())) /
             (static_cast<double>(tokens * top_k) / experts);
    };
    EXPECT_GT(most_over_mean(counts_of_step()), 1.8);
    for (int step = 0; step < 300; ++step) {
      std::vector<double> signs(experts);
      add_load_signs(counts_of_step(), 1, experts, signs);
      move_selection_bias(bias, signs, {.rate = 0.002});
    }
    EXPECT_LT(most_over_mean(counts_of_step()), 1.1);
  }
}

}  // namespace
}  // namespace conclave
