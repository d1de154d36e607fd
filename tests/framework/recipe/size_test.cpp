// Counts of parameters and arithmetic against numbers worked out by hand.
#include <gtest/gtest.h>

#include "framework/base/allocation_size.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/plan.h"
#include "tests/framework/recipe/example.h"

namespace conclave {
namespace {

/// Small primes, so that a forgotten factor changes the sum.
ModelRecipe small_model() {
  ModelRecipe model;
  model.vocab_size = 17;
  model.hidden_size = 5;
  model.intermediate_size = 7;
  model.num_hidden_layers = 3;
  model.num_attention_heads = 6;
  model.num_key_value_heads = 2;
  model.head_dim = 4;
  model.moe.num_experts = 11;
  model.moe.num_experts_per_tok = 2;
  model.moe.moe_intermediate_size = 13;
  model.moe.num_shared_experts = 1;
  model.moe.first_k_dense_replace = 1;
  return model;
}

TEST(ParameterCount, IsTheSumOfEveryMatrix) {
  const ParameterCount count = count_parameters(small_model());
  EXPECT_EQ(count.embedding, 17 * 5);
  EXPECT_EQ(count.attention, 3 * (5 * 24 + 5 * 8 + 5 * 8 + 24 * 5));
  EXPECT_EQ(count.router, 2 * 11 * 5);
  EXPECT_EQ(count.experts, 2 * 11 * (13 * 5 + 13 * 5 + 5 * 13));
  EXPECT_EQ(count.shared_experts, 2 * 3 * 13 * 5);
  EXPECT_EQ(count.dense_mlp, 3 * 7 * 5);
  EXPECT_EQ(count.norms, 3 * (5 + 5 + 4 + 4) + 5);
  EXPECT_EQ(count.lm_head, 17 * 5);
  EXPECT_EQ(count.total(), 85 + 960 + 110 + 4290 + 390 + 105 + 59 + 85);
  EXPECT_EQ(count_active_parameters(small_model()).experts, 2 * 2 * 195);
}

TEST(ParameterCount, KnowsTiedEmbeddingsAndMissingNorms) {
  ModelRecipe model = small_model();
  model.tie_word_embeddings = true;
  model.qk_norm = false;
  EXPECT_EQ(count_parameters(model).lm_head, 0);
  EXPECT_EQ(count_parameters(model).norms, 3 * 10 + 5);
}

TEST(ParameterCount, KnowsNormsOverAllHeads) {
  ModelRecipe model = small_model();
  model.qk_norm_over = "all_heads";
  EXPECT_EQ(count_parameters(model).norms, 3 * (5 + 5 + 24 + 8) + 5);
}

TEST(TrainingFlops, CountProductsSixTimesAndCausalAttentionOnce) {
  // Active products: 960 + 110 + 780 + 390 + 105 + the LM head's 85. Attention: 3 layers, sequence 10,
  // width 24.
  const double expected = 6.0 * (960 + 110 + 780 + 390 + 105 + 85) + 3.0 * 3 * (2 * 2 * 5 * 24);
  EXPECT_DOUBLE_EQ(training_flops_per_token(small_model(), 10), expected);
  ModelRecipe tied = small_model();
  tied.tie_word_embeddings = true;
  EXPECT_DOUBLE_EQ(training_flops_per_token(tied, 10), expected) << "a tied LM head computes as much";
}

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
  recipe.training.recompute = "block";
  EXPECT_LT(plan_memory(recipe, 1).activations, activations / 2);
  recipe.training.precision = "fp64";
  EXPECT_DOUBLE_EQ(plan_memory(recipe, 1).parameters, 8 * parameters);
  recipe.model.moe.balance[0].scope = "micro_batch";
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).statistics, 16 + 48 + 4 * 16 * 8 + (4 * 16 + 2 * 4) * 8);
}

TEST(Plan, SharesOutParameters) {
  Recipe recipe = example_recipe();
  recipe.parallel.tensor = 2;
  recipe.parallel.expert = 2;
  recipe.parallel.expert_tensor = 2;
  const ParameterCount all = count_parameters(recipe.model);
  std::int64_t elements = 0;
  for (const ParameterPlan& parameter : plan_parameters(recipe, 8))
    elements += parameter.count * parameter.elements;
  EXPECT_EQ(elements,
            (all.embedding + all.lm_head + all.attention) / 2 + all.experts / 4 + all.router + all.norms);
  // Replicas: 4 of what tensor ranks cut, 2 of each expert.
  recipe.parallel.zero = 1;
  const MemoryPlan memory = plan_memory(recipe, 8);
  EXPECT_NEAR(memory.moments,
              8.0 * static_cast<double>((all.embedding + all.lm_head + all.attention) / 8 + all.experts / 8 +
                                        all.router / 8),
              8.0 * static_cast<double>(all.norms));
  EXPECT_DOUBLE_EQ(memory.reduced_gradients, memory.moments / 2);
  const NetworkPlan network = plan_network(recipe, 8);
  EXPECT_DOUBLE_EQ(network.gradients + network.parameters, memory.parameters);
  EXPECT_DOUBLE_EQ(network.parameters, memory.moments / 2);
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
  recipe.training.recompute = "block";
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
  recipe.parallel.dispatcher = "all_gather";
  const double rows = 1024 * 128 * 4, weights = 1024 * 2 * 4;
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).dispatch, 2 * 4 * (rows + 2 * weights + 3 * (rows + weights)));
  EXPECT_DOUBLE_EQ(plan_network(recipe, 4).combine, 2 * 4 * (3 * rows + rows));
}

TEST(Plan, CountsTheRowsOfOneExchange) {
  Recipe recipe = example_recipe();
  recipe.parallel.expert = 2;
  const std::vector<std::int64_t> sent = {3, 5,   // rank 0 to itself and to rank 1
                                          4, 6};  // rank 1 to rank 0 and to itself
  const LayoutPlan layout = plan_layout(recipe, 2);
  const ExchangeRows first = rows_of_rank(recipe, sent, 0), second = rows_of_rank(recipe, sent, 1);
  EXPECT_EQ(first.sent, 8);
  EXPECT_EQ(first.leaving, 5);
  EXPECT_EQ(first.arriving, 4);
  EXPECT_EQ(first.computed, 7);
  EXPECT_EQ(first.rounds.size(), 1u);
  EXPECT_EQ(second.leaving, 4);
  EXPECT_EQ(second.arriving, 5);
  EXPECT_EQ(second.computed, 11);
  // Rows of 128 float32; 8 counts of the other rank's experts.
  const double row = 128 * 4, counts = 8 * 8;
  EXPECT_DOUBLE_EQ(exchange_bytes(recipe, layout, first).dispatch, 5 * row + counts + 4 * row);
  EXPECT_DOUBLE_EQ(exchange_bytes(recipe, layout, first).combine, 4 * row + 5 * row);

  // Four at a time: rank 0 receives 3 + 1 of its own and rank 1's, then 3; rank 1 receives 4, 1 + 3, 3.
  recipe.parallel.dispatch_rows = 4;
  const auto rounds = [&](int rank) {
    std::vector<std::vector<double>> rows;
    for (const ExchangeRows::Round& round : rows_of_rank(recipe, sent, rank).rounds)
      rows.push_back({round.sent, round.computed});
    return rows;
  };
  EXPECT_EQ(rounds(0), (std::vector<std::vector<double>>{{3 + 4, 4}, {0 + 1, 3}, {0, 0}}));
  EXPECT_EQ(rounds(1), (std::vector<std::vector<double>>{{1 + 0, 4}, {3 + 3, 4}, {0 + 3, 3}}));
  // Rounds run twice forward; first, an int64 to each rank of the group.
  const ExchangeBytes bytes = exchange_bytes(recipe, layout, rows_of_rank(recipe, sent, 0));
  EXPECT_DOUBLE_EQ(bytes.dispatch, 2 * 8 + 2 * (5 * row + 3 * counts) + 4 * row);
  EXPECT_DOUBLE_EQ(bytes.combine, 2 * 4 * row + 5 * row);
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
