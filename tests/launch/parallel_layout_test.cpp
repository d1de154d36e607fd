// Expert, tensor, sequence, expert-tensor and data parallelism, sharded optimizers, dispatchers,
// recomputation and micro-batch sizes never change the mathematics: losses, norms and every gathered gradient
// equal the oracle's, one rank with the whole step in one micro-batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "launch/plan/plan.h"
#include "launch/train/checkpointing.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"
#include "tests/shared_directory.h"

namespace conclave {
namespace {

using test::name_of;
using test::synthetic_batch;

constexpr int steps = 5;

Recipe base_recipe() {
  Recipe recipe = test::tiny_recipe();
  recipe.model.vocab_size = 64;
  recipe.model.num_key_value_heads = 4;
  recipe.model.moe.first_k_dense_replace = 1;
  recipe.model.num_hidden_layers = 3;
  recipe.model.moe.balance.push_back({.scope = BalanceScope::sequence, .coefficient = 0.05});
  recipe.model.moe.balance.push_back(
      {.scope = BalanceScope::group, .coefficient = 0.1, .balance_batch_size = 2});
  recipe.model.moe.balance.push_back({.scope = BalanceScope::global_batch,
                                      .estimator = Estimator::exact,
                                      .coefficient = 0.1,
                                      .expert_groups = 4});
  return recipe;
}

/// Sigmoid scores in groups, a selection bias that moves fast, and terms over what no rank sees alone, two of
/// them over groups of experts, whatever number of ranks the experts are on.
Recipe other_router_recipe() {
  Recipe recipe = base_recipe();
  RouterRecipe& router = recipe.model.moe.router;
  router = {.kind = RouterKind::sigmoid,
            .norm_topk_prob = false,
            .routed_scaling_factor = 1.5,
            .n_group = 4,
            .topk_group = 2,
            .z_loss_coefficient = 0.01,
            .bias = {.rate = 0.03, .scope = BiasScope::global_batch, .recentre = true}};
  recipe.model.moe.balance = {
      {.scope = BalanceScope::group, .coefficient = 0.1, .balance_batch_size = 4, .expert_groups = 4},
      {.scope = BalanceScope::global_batch, .estimator = Estimator::exact, .coefficient = 0.1},
      {.scope = BalanceScope::sequence, .coefficient = 0.1, .expert_groups = 2}};
  return recipe;
}

/// Every way to fold these ranks; the other choices take turns, so that each meets many folds.
std::vector<Recipe> layouts(std::int64_t ranks, const Recipe& base = base_recipe()) {
  std::vector<Recipe> recipes;
  int turn = 0;
  for (const std::int64_t tensor : {1, 2, 4})
    for (const std::int64_t expert : {1, 2, 4, 8})
      for (const std::int64_t expert_tensor : {1, 2}) {
        if (ranks % tensor != 0 || ranks % (expert * expert_tensor) != 0) continue;
        Recipe recipe = base;
        const std::int64_t most = 8 / (ranks / tensor);
        recipe.parallel = {
            .tensor = tensor,
            .expert = expert,
            .expert_tensor = expert_tensor,
            .sequence = tensor > 1 && turn % 2 == 0,
            .zero = turn % 3 == 0 ? 0 : 1,
            .dispatcher = turn % 4 == 3 ? DispatcherKind::all_gather : DispatcherKind::all_to_all,
            .dispatch_rows = turn % 5 == 1 ? 7 : 0};
        recipe.training.recompute = turn % 3 == 1 ? Recompute::block : Recompute::none;
        recipe.training.micro_batch_size = turn % 2 == 0 ? 1 : most;
        recipes.push_back(recipe);
        ++turn;
      }
  return recipes;
}

/// batches: none for synthetic_batch().
std::unique_ptr<Trainer> make_trainer(const Recipe& recipe, Mesh& mesh,
                                      const Trainer::BatchSource& batches = {}) {
  return std::make_unique<Trainer>(recipe, mesh, batches ? batches : test::synthetic_batches(recipe));
}

Mesh mesh_of(const Recipe& recipe) {
  return Mesh(test::mpi_world(), degrees_of(recipe.parallel));
}

using Tensors = std::map<std::string, std::vector<double>>;
Tensors gradients_of(const Trainer& trainer) {
  Tensors tensors;
  trainer.gather_gradients([&](const std::string& name, const Tensor& whole) {
    with_float_type(whole.dtype(), [&](auto zero) {
      const auto values = whole.to_host<decltype(zero)>();
      tensors[name].assign(values.begin(), values.end());
    });
  });
  return tensors;
}

double difference(double a, double b) {
  return std::abs(a - b) / std::max({std::abs(a), std::abs(b), 1e-30});
}

struct Oracle {
  std::vector<StepResult> results;
  std::vector<Tensors> gradients;
};

/// All scores of every router tie, and ties go to the first expert: until the first update all tokens choose
/// it.
void tie_routers(const Trainer& trainer) {
  for (const Parameter& parameter : trainer.model().parameters.all())
    if (parameter.name.ends_with(".mlp.gate.weight")) parameter.value.fill_zero();
}

Oracle run_oracle(Recipe recipe, int count, bool tied = false,
                  const Trainer::BatchSource& batches = Trainer::BatchSource()) {
  recipe.parallel = {};
  recipe.training.micro_batch_size = recipe.training.global_batch_size;
  recipe.training.recompute = Recompute::none;
  Mesh alone(self_communicator(), {});
  const auto trainer = make_trainer(recipe, alone, batches);
  if (tied) tie_routers(*trainer);
  Oracle oracle;
  for (int step = 0; step < count; ++step) {
    oracle.results.push_back(trainer->step());
    oracle.gradients.push_back(gradients_of(*trainer));
  }
  return oracle;
}

/// As many steps as the oracle made.
void expect_equal(const Recipe& recipe, const Oracle& oracle,
                  const Trainer::BatchSource& batches = Trainer::BatchSource()) {
  SCOPED_TRACE(name_of(recipe));
  Mesh mesh = mesh_of(recipe);
  const auto trainer = make_trainer(recipe, mesh, batches);
  for (std::size_t step = 0; step < oracle.results.size(); ++step) {
    const StepResult result = trainer->step();
    const StepResult& expected = oracle.results[step];
    ASSERT_LT(difference(result.lm_loss, expected.lm_loss), 1e-10);
    ASSERT_LT(difference(result.loss, expected.loss), 1e-10);
    ASSERT_LT(difference(result.balance.load_balance_loss, expected.balance.load_balance_loss), 1e-10);
    ASSERT_LT(difference(result.gradient_norm, expected.gradient_norm), 1e-10);
    ASSERT_EQ(result.balance.counts, expected.balance.counts);
    ASSERT_EQ(result.balance.layers_of("dropped_assignments"),
              expected.balance.layers_of("dropped_assignments"));
    for (const auto& [name, gradient] : gradients_of(*trainer)) {
      const std::vector<double>& want = oracle.gradients[step].at(name);
      ASSERT_EQ(gradient.size(), want.size()) << name;
      ASSERT_LT(test::worst_difference(gradient, want), 1e-10) << name << " in step " << step;
    }
  }
}

TEST(ParallelLayout, LossesGradientsAndNormsEqualTheOracle) {
  const Oracle oracle = run_oracle(base_recipe(), steps);
  for (const Recipe& recipe : layouts(test::mpi_world()->size()))
    ASSERT_NO_FATAL_FAILURE(expect_equal(recipe, oracle));
}

// A sequence's tokens may lie on several tensor ranks, and its experts anywhere: the same assignments are
// dropped.
TEST(ParallelLayout, CapacityDropsTheSameAsTheOracle) {
  Recipe base = base_recipe();
  base.model.moe.capacity_factor = 0.7;  // 2 places of an expert in a sequence of 12 tokens
  const Oracle oracle = run_oracle(base, 3);
  const std::vector<double> all_dropped = oracle.results[0].balance.layers_of("dropped_assignments");
  ASSERT_FALSE(all_dropped.empty());
  for (const double dropped : all_dropped) ASSERT_GT(dropped, 8);
  for (Recipe recipe : layouts(test::mpi_world()->size()))
    for (const DispatcherKind dispatcher : {DispatcherKind::all_to_all, DispatcherKind::all_gather}) {
      recipe.model.moe.capacity_factor = base.model.moe.capacity_factor;
      recipe.parallel.dispatcher = dispatcher;
      ASSERT_NO_FATAL_FAILURE(expect_equal(recipe, oracle));
    }
}

TEST(ParallelLayout, SigmoidScoresGroupsAndASelectionBiasEqualTheOracleToo) {
  Recipe by_sequence = other_router_recipe();
  by_sequence.model.moe.router = {.norm_topk_prob = true,
                                  .bias = {.rate = 0.01, .scope = BiasScope::sequence}};
  for (const Recipe& base : {other_router_recipe(), by_sequence}) {
    const Oracle oracle = run_oracle(base, steps);
    const std::vector<Recipe> all = layouts(test::mpi_world()->size(), base);
    for (std::size_t index = 0; index < all.size(); index += 3)
      ASSERT_NO_FATAL_FAILURE(expect_equal(all[index], oracle));
  }
}

/// Pools whose documents lie across tensor ranks, and the counting pass that the tiny recipe's balance needs.
Recipe pools_recipe() {
  Recipe recipe = base_recipe();
  recipe.model.moe.router.norm_topk_prob = false;
  recipe.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 3};
  return recipe;
}

TEST(ParallelLayout, PoolsOfDocumentsEqualTheOracleToo) {
  const Recipe base = pools_recipe();
  const Oracle oracle = run_oracle(base, steps);
  for (const Recipe& recipe : layouts(test::mpi_world()->size(), base))
    ASSERT_NO_FATAL_FAILURE(expect_equal(recipe, oracle));
  Recipe with_capacity = base;
  with_capacity.model.moe.capacity_factor = 0.7;
  with_capacity.data.sequence_length = 16;
  with_capacity.model.moe.router.bias = {.rate = 0.03, .scope = BiasScope::global_batch};
  const Oracle other = run_oracle(with_capacity, 3);
  const std::vector<Recipe> all = layouts(test::mpi_world()->size(), with_capacity);
  for (std::size_t index = 0; index < all.size(); index += 3)
    ASSERT_NO_FATAL_FAILURE(expect_equal(all[index], other));
}

// The keys that change how parameters are shared, cut or left out, and with it which gradients travel.
TEST(ParallelLayout, TiedFrozenDenseAndBiasedModelsEqualTheOracleToo) {
  Recipe tied = base_recipe(), frozen = base_recipe(), dense = base_recipe(), biased = base_recipe();
  biased.model.attention_bias = AttentionBias::all;
  biased.model.moe.first_k_dense_replace = 0;
  biased.model.moe.dense_layers = {1};
  biased.model.no_rope_layers = {2};
  tied.model.tie_word_embeddings = true;
  tied.model.qk_norm = false;
  tied.model.moe.num_shared_experts = 0;
  frozen.optimizer.groups = {{.pattern = "*.mlp.gate.weight", .frozen = true},
                             {.pattern = "*.layers.1.mlp.experts.*", .frozen = true},
                             {.pattern = "model.embed_tokens.weight", .frozen = true}};
  dense.model.moe.first_k_dense_replace = dense.model.num_hidden_layers;
  for (const Recipe& base : {tied, frozen, dense, biased}) {
    const Oracle oracle = run_oracle(base, 3);
    const std::vector<Recipe> all = layouts(test::mpi_world()->size(), base);
    for (std::size_t index = 0; index < all.size(); index += 2)
      ASSERT_NO_FATAL_FAILURE(expect_equal(all[index], oracle));
  }
}

// The first sequence of the step alone holds tokens, so most ranks have none in the whole step.
TEST(ParallelLayout, RanksWithoutTokensTrain) {
  const Recipe base = base_recipe();
  const Trainer::BatchSource batches = [base](std::int64_t step, std::int64_t first, std::int64_t count) {
    Batch batch = synthetic_batch(base, step, first, count);
    const auto begin = static_cast<std::ptrdiff_t>(first == 0 ? batch.length : 0);
    std::fill(batch.tokens.begin() + begin, batch.tokens.end(), -1);
    std::fill(batch.targets.begin() + begin, batch.targets.end(), -1);
    for (auto column = static_cast<std::size_t>(begin); column < batch.document_start.size(); ++column)
      batch.document_start[column] =
          static_cast<std::int32_t>(column % static_cast<std::size_t>(batch.length));
    return batch;
  };
  const Oracle oracle = run_oracle(base, 2, false, batches);
  ASSERT_LE(oracle.results[0].tokens, base.data.sequence_length);
  for (const Recipe& recipe : layouts(test::mpi_world()->size()))
    ASSERT_NO_FATAL_FAILURE(expect_equal(recipe, oracle, batches));
}

TEST(ParallelLayout, InFp32TheFirstEightLossesAgree) {
  for (Recipe base : {base_recipe(), pools_recipe()}) {
    base.training.precision = NumberFormat::fp32;
    const Oracle oracle = run_oracle(base, 8);
    for (const Recipe& recipe : layouts(test::mpi_world()->size(), base)) {
      SCOPED_TRACE(name_of(recipe));
      Mesh mesh = mesh_of(recipe);
      const auto trainer = make_trainer(recipe, mesh);
      for (int step = 0; step < 8; ++step)
        ASSERT_LT(difference(trainer->step().lm_loss, oracle.results[static_cast<std::size_t>(step)].lm_loss),
                  1e-5);
    }
  }
}

TEST(ParallelLayout, InitialWeightsAreBitEqual) {
  Tensors expected;
  const auto collect = [](const Trainer& trainer, Tensors& into) {
    trainer.gather_values(
        [&](const std::string& name, const Tensor& whole) { into[name] = whole.to_host<double>(); });
  };
  Mesh alone(self_communicator(), {});
  collect(*make_trainer(base_recipe(), alone), expected);
  for (const Recipe& recipe : layouts(test::mpi_world()->size())) {
    Mesh mesh = mesh_of(recipe);
    Tensors values;
    collect(*make_trainer(recipe, mesh), values);
    EXPECT_EQ(values, expected) << name_of(recipe);
  }
}

// All tokens on one expert, as many experts per token as there are, one expert: nothing hangs and nothing
// changes.
TEST(ParallelLayout, ExtremesOfRoutingTrain) {
  struct Extreme {
    std::int64_t experts, top_k;
    bool tied;
  };
  for (const Extreme extreme : {Extreme{8, 1, true}, Extreme{8, 8, false}, Extreme{1, 1, false}}) {
    Recipe base = base_recipe();
    base.model.moe.num_experts = extreme.experts;
    base.model.moe.num_experts_per_tok = extreme.top_k;
    if (extreme.experts == 1) base.model.moe.balance.pop_back();  // which is over groups of experts
    const Oracle oracle = run_oracle(base, 2, extreme.tied);
    if (extreme.tied) {
      const std::vector<std::int64_t>& counts = oracle.results[0].balance.counts;
      ASSERT_EQ(counts[0], oracle.results[0].tokens) << "the first expert was to get every token";
    }
    for (const Recipe& layout : layouts(test::mpi_world()->size())) {
      if (extreme.experts % layout.parallel.expert != 0) continue;
      SCOPED_TRACE(name_of(layout));
      Recipe recipe = base;
      recipe.parallel = layout.parallel;
      recipe.training = layout.training;
      Mesh mesh = mesh_of(recipe);
      const auto trainer = make_trainer(recipe, mesh);
      if (extreme.tied) tie_routers(*trainer);
      for (int step = 0; step < 2; ++step)
        ASSERT_LT(difference(trainer->step().lm_loss, oracle.results[static_cast<std::size_t>(step)].lm_loss),
                  1e-9);
    }
  }
}

// Saved on each layout, loaded on the next: the run goes on as if it had never changed ranks' places.
TEST(ParallelLayout, CheckpointsLoadOnAnotherLayout) {
  const auto world = test::mpi_world();
  const Oracle oracle = run_oracle(base_recipe(), 4);
  const test::SharedDirectory directory;
  const std::vector<Recipe> all = layouts(world->size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Recipe &first = all[i], &second = all[(i + 1) % all.size()];
    SCOPED_TRACE(name_of(first) + " -> " + name_of(second));
    Mesh first_mesh = mesh_of(first), second_mesh = mesh_of(second);
    {
      const auto trainer = make_trainer(first, first_mesh);
      for (int step = 0; step < 2; ++step) trainer->step();
      Logger logger({.rank = 1});  // speaks only of failures
      Checkpointing checkpointing(directory.path(), {.least_share_bytes = 1024}, *world, logger);
      checkpointing.save(*trainer);
      checkpointing.finish();
      EXPECT_FALSE(checkpointing.last_failure());
    }
    const auto trainer = make_trainer(second, second_mesh);
    trainer->load(CheckpointReader(directory.path() / "step-00000002"));
    for (int step = 2; step < 4; ++step) {
      const StepResult result = trainer->step();
      ASSERT_LT(difference(result.lm_loss, oracle.results[static_cast<std::size_t>(step)].lm_loss), 1e-10);
      ASSERT_LT(
          difference(result.gradient_norm, oracle.results[static_cast<std::size_t>(step)].gradient_norm),
          1e-10);
    }
    world->barrier();
  }
}

// All tokens of the group on one expert of one rank: under a bound on rows received at once the step needs
// hardly more memory than with even routing, without it several times as much.
TEST(ParallelLayout, BoundedDispatchKeepsMemoryUnderAnySkew) {
  const auto world = test::mpi_world();
  if (world->size() < 8) GTEST_SKIP() << "the skew needs eight ranks";
  double planned = 0;  // at worst, of the recipe that was measured last
  const auto peak_of = [&](double initial_range, std::int64_t rows) {
    Recipe recipe = base_recipe();
    recipe.model.initializer_range = initial_range;
    recipe.model.moe.num_experts_per_tok = 1;
    recipe.model.moe.num_shared_experts = 0;
    recipe.model.moe.balance = {};  // nothing mends the skew before it is measured
    recipe.optimizer.lr = 1e-12;
    recipe.model.moe.moe_intermediate_size = 128;
    recipe.data.sequence_length = 64;
    recipe.parallel = {.expert = 8, .dispatch_rows = rows};
    planned = plan_memory(recipe, world->size()).worst_activations;
    Mesh mesh = mesh_of(recipe);
    const auto trainer = make_trainer(recipe, mesh);
    trainer->step();
    cpu_device().reset_peak();
    const std::size_t before = cpu_device().memory_use().live;
    trainer->step();
    const Tensor most =
        Tensor::from(std::vector<double>{static_cast<double>(cpu_device().memory_use().peak - before)}, {1});
    world->all_reduce(most, ReduceOp::maximum, Purpose::agreement);
    return most.item();
  };
  const double even = peak_of(0.2, 64), skewed = peak_of(0.0, 64), bound = planned,
               unbounded = peak_of(0.0, 0);
  if (world->rank() == 0)
    std::printf(
        "peak of a step, MB: even %.2f, all on one expert %.2f, planned at worst %.2f, without a bound "
        "%.2f\n",
        even / 1e6, skewed / 1e6, bound / 1e6, unbounded / 1e6);
  EXPECT_LT(skewed, 1.25 * even);
  EXPECT_LT(skewed, 1.05 * bound);
  EXPECT_GT(unbounded, 2 * even);
}

}  // namespace
}  // namespace conclave
