// Plans against numbers worked out by hand.
#include "launch/plan/plan.h"

#include <gtest/gtest.h>

#include "framework/base/allocation_size.h"
#include "launch/train/model_size.h"
#include "tests/launch/example.h"

namespace conclave {
namespace {

TEST(Plan, SharesTheBatch) {
  const LayoutPlan layout = plan_layout(example_recipe(), 4);
  EXPECT_EQ(layout.data_ranks, 4);
  EXPECT_EQ(layout.micro_steps, 2);
  EXPECT_EQ(layout.tokens_per_micro_batch, 4 * 256);
  EXPECT_EQ(layout.tokens_per_step, 32 * 256);
}

TEST(Plan, CountsBytes) {
  Recipe recipe = example_recipe();
  const double parameters = static_cast<double>(count_parameters(recipe.model).total());
  EXPECT_DOUBLE_EQ(plan_memory(recipe, 1).parameters, 4 * parameters) << "every part is a multiple of 16";
  EXPECT_DOUBLE_EQ(plan_memory(recipe, 4).moments, 8 * parameters);
  // A checkpoint's values and two moments, a quarter from each rank.
  EXPECT_DOUBLE_EQ(plan_memory(recipe, 4).snapshot, 3 * 4 * parameters / 4);
  // On 4 ranks parameters begin at multiples of 64, which the 8 norms of 32 numbers do not fill.
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).gradients, 4 * (parameters + 8 * 32));
  // Tokens; losses, stop, save and norm; counts of two micro-batches; probabilities and two sums per layer.
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).statistics, 16 + 48 + 2 * 4 * 16 * 8 + (4 * 16 + 2 * 4) * 8);
  EXPECT_DOUBLE_EQ(plan_network(recipe, 1).total(), 0);
  const double activations = plan_memory(recipe, 1).activations;
  EXPECT_EQ(plan_memory(recipe, 1).worst_activations, activations) << "one rank has all experts";
  recipe.training.recompute = Recompute::block;
  EXPECT_LT(plan_memory(recipe, 1).activations, activations / 2);
  recipe.training.precision = NumberFormat::fp64;
  EXPECT_DOUBLE_EQ(plan_memory(recipe, 1).parameters, 8 * parameters);
  recipe.model.moe.balance[0].scope = BalanceScope::micro_batch;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).statistics, 16 + 48 + 4 * 16 * 8 + (4 * 16 + 2 * 4) * 8);
}

TEST(Plan, SharesOutParameters) {
  Recipe recipe = example_recipe();
  recipe.parallel.tensor = 2;
  recipe.parallel.expert = 2;
  recipe.parallel.expert_tensor = 2;
  const ParameterCount all = count_parameters(recipe.model);
  // Replicas: 4 of what tensor ranks cut, 2 of each expert.
  recipe.parallel.zero = 1;
  const MemoryPlan memory = plan_memory(recipe, 8);
  EXPECT_NEAR(memory.moments,
              8.0 * static_cast<double>((all.embedding + all.lm_head + all.attention) / 8 + all.experts / 8 +
                                        all.router / 8),
              8.0 * static_cast<double>(all.norms));
  // The result of a reduce-scatter has the gaps between norms, which take no moments.
  EXPECT_NEAR(memory.reduced_gradients, memory.moments / 2, 8.0 * static_cast<double>(all.norms));
  const NetworkPlan network = plan_network(recipe, 8);
  EXPECT_DOUBLE_EQ(network.gradients + network.parameters, memory.parameters);
  EXPECT_DOUBLE_EQ(network.parameters, memory.reduced_gradients);
}

TEST(Plan, CountsWhatTensorRanksExchange) {
  Recipe recipe = example_recipe();
  recipe.parallel.tensor = 2;
  // 4 ranks: 2 replicas, so 4 micro-batches of 1024 tokens; attention of 4 blocks; embedding and LM head.
  const double x = 1024 * 128 * 4, statistics = 1024 * 24;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).activations,
                   4 * (4 * (x + x + x / 2 + x / 2) + x + x + statistics));
  recipe.parallel.sequence = true;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).activations,
                   4 * (4 * 4 * x / 2 + 2 * x / 2 + 2 * x / 2 + statistics));
  recipe.training.recompute = Recompute::block;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).activations,
                   4 * (4 * 6 * x / 2 + 2 * x / 2 + 2 * x / 2 + statistics));
}

TEST(Plan, CountsDispatch) {
  Recipe recipe = example_recipe();
  recipe.parallel.expert = 4;
  const LayoutPlan layout = plan_layout(recipe, 4);
  EXPECT_EQ(layout.expected_expert_rows, 2 * 1024);
  EXPECT_EQ(layout.worst_expert_rows, 4 * 2 * 1024);
  // 2 micro-batches, 4 blocks; of 2048 rows three quarters leave; 4 experts each of 3 other ranks.
  const double leaving = 2048 * 0.75 * 128 * 4, counts = 3 * 4 * 8;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).dispatch, 2 * 4 * (2 * leaving + counts));
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).combine, 2 * 4 * 2 * leaving);

  const MemoryPlan free = plan_memory(recipe, 4);
  EXPECT_GT(free.worst_activations, free.activations);
  recipe.parallel.dispatch_rows = 2048;  // the expected rows still pass at once
  const MemoryPlan bounded = plan_memory(recipe, 4);
  EXPECT_DOUBLE_EQ(bounded.activations, free.activations);
  EXPECT_DOUBLE_EQ(bounded.worst_activations, bounded.activations) << "as many rows at once";
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).dispatch, 2 * 4 * (2 * leaving + counts + 4 * 8));
  recipe.parallel.dispatch_rows = 1024;  // two rounds, computed again in backward
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).dispatch, 2 * 4 * (3 * leaving + 4 * counts + 4 * 8));
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).combine, 2 * 4 * 3 * leaving);

  recipe.parallel.dispatch_rows = 0;
  recipe.parallel.dispatcher = DispatcherKind::all_gather;
  const double rows = 1024 * 128 * 4, weights = 1024 * 2 * 4;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).dispatch, 2 * 4 * (rows + 2 * weights + 3 * (rows + weights)));
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).combine, 2 * 4 * (3 * rows + rows));
}

TEST(Plan, RoundsAsTheAllocatorDoes) {
  Recipe recipe = example_recipe();
  const MemoryPlan plan = plan_memory(recipe, 1);
  const auto rounded = [](double bytes) {
    return static_cast<double>(allocation_size(static_cast<std::size_t>(bytes)));
  };
  EXPECT_EQ(allocation_size(0), 64u);
  EXPECT_EQ(allocation_size(1025), 1152u);
  EXPECT_DOUBLE_EQ(plan.states(), 2 * rounded(plan.parameters) + 2 * rounded(plan.moments / 2) + plan.pieces);
}

}  // namespace
}  // namespace conclave
