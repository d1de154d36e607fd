// How often the host waits for the device in a whole training step, Trainer::step, from the tokens' way to
// the device to the update: for what the dispatch of each layer reads, once per micro-step for what the
// routers left behind, and once for the losses and the norm of the gradients. Counted exactly, on the
// emulated device: every other reading would be one more. Late streams show that what goes to the device
// waits for nothing.
#include <gtest/gtest.h>

#include "framework/device/stand_in/cuda_runtime.h"
#include "launch/train/trainer.h"
#include "tests/launch/synthetic.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using emulated::StreamMode;

/// Each rank takes micro_steps micro-batches.
std::int64_t waits_of_step(Recipe recipe, std::int64_t micro_steps, StreamMode mode = StreamMode::eager) {
  Mesh mesh(test::mpi_world(), degrees_of(recipe.parallel));
  recipe.training.global_batch_size =
      recipe.training.micro_batch_size * micro_steps * mesh.axis(Axis::data).size();
  Device& device = emulated_device();
  emulated::set_stream_mode(mode);
  Trainer trainer(
      recipe, mesh,
      [&recipe](std::int64_t step, std::int64_t first, std::int64_t count) {
        return test::synthetic_batch(recipe, step, first, count);
      },
      device);
  const std::int64_t before = device.host_waits();
  const StepResult result = trainer.step();
  const std::int64_t waits = device.host_waits() - before;
  emulated::set_stream_mode(StreamMode::eager);
  EXPECT_GT(result.gradient_norm, 0);
  EXPECT_FALSE(result.skipped) << result.not_finite;
  return waits;
}

/// On two ranks, each has half of the experts.
Recipe recipe_of(std::int64_t layers) {
  Recipe recipe = test::tiny_recipe();
  recipe.training.precision = NumberFormat::fp32;
  recipe.training.micro_batch_size = 2;
  recipe.model.num_hidden_layers = layers;
  recipe.model.moe.balance = {{.scope = BalanceScope::micro_batch, .coefficient = 0.1}};
  recipe.parallel = {.expert = test::mpi_world()->size(), .zero = 1};
  return recipe;
}

bool alone() {
  return test::mpi_world()->size() == 1;
}

TEST(HostWaits, AreTheRowCountsOneReadingPerMicroStepAndOnePerStep) {
  for (const std::int64_t layers : {1, 3})
    for (const std::int64_t micro_steps : {1, 2, 4})
      for (const StreamMode mode : {StreamMode::eager, StreamMode::deferred})
        EXPECT_EQ(waits_of_step(recipe_of(layers), micro_steps, mode), micro_steps * (layers + 1) + 1)
            << layers << " layers, " << micro_steps << " micro-steps";
}

// Ids of tokens, rows of experts: each of these is more than the least block of pinned memory holds.
TEST(HostWaits, AreNoMoreForManyTokens) {
  Recipe recipe = recipe_of(1);
  recipe.model.moe.num_shared_experts = 0;
  recipe.model.hidden_size = recipe.model.head_dim = recipe.model.moe.moe_intermediate_size = 8;
  recipe.model.num_attention_heads = recipe.model.num_key_value_heads = 1;
  recipe.training.micro_batch_size = 360;
  ASSERT_GT(recipe.training.micro_batch_size * recipe.data.sequence_length, 4096);
  for (const StreamMode mode : {StreamMode::eager, StreamMode::deferred})
    EXPECT_EQ(waits_of_step(recipe, 1, mode), 1 + 1 + 1);
}

TEST(HostWaits, AreNoMoreForPoolsOfDocuments) {
  Recipe recipe = recipe_of(3);
  recipe.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 4};
  for (const StreamMode mode : {StreamMode::eager, StreamMode::deferred})
    EXPECT_EQ(waits_of_step(recipe, 2, mode), 2 * (3 + 1) + 1);
}

TEST(HostWaits, AreNoneForADenseLayer) {
  Recipe recipe = recipe_of(3);
  recipe.model.moe.first_k_dense_replace = 2;
  EXPECT_EQ(waits_of_step(recipe, 2), 2 * (1 + 1) + 1);
}

TEST(HostWaits, OfRowCountsComeAgainWhereBackwardRecomputes) {
  Recipe recipe = recipe_of(2);
  recipe.training.recompute = Recompute::block;
  EXPECT_EQ(waits_of_step(recipe, 2), 2 * (2 * 2 + 1) + 1);
}

TEST(HostWaits, AreOneMorePerLayerUnderACapacity) {
  Recipe recipe = recipe_of(2);
  recipe.model.moe.capacity_factor = 1;
  EXPECT_EQ(waits_of_step(recipe, 2), 2 * (2 * 2 + 1) + 1);
}

TEST(HostWaits, AreNoMoreForAnyScopeOfBalancing) {
  for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::group, BalanceScope::data_parallel,
                                   BalanceScope::shuffle, BalanceScope::global_batch}) {
    Recipe recipe = recipe_of(2);
    recipe.model.moe.balance = {
        {.scope = scope, .estimator = Estimator::running, .coefficient = 0.1, .balance_batch_size = 2}};
    recipe.model.moe.balance.push_back({.scope = BalanceScope::micro_batch, .coefficient = 0.01});
    EXPECT_EQ(waits_of_step(recipe, 1), 2 + 1 + 1) << scope;
  }
}

TEST(HostWaits, ComeAgainInACountingPass) {
  Recipe recipe = recipe_of(2);
  recipe.model.moe.balance = {
      {.scope = BalanceScope::global_batch, .estimator = Estimator::exact, .coefficient = 0.1}};
  EXPECT_EQ(waits_of_step(recipe, 3), 2 * 3 * (2 + 1) + 1);
}

TEST(HostWaits, AreOneMoreForARecentredSelectionBias) {
  Recipe recipe = recipe_of(2);
  recipe.model.moe.router.bias = {.rate = 0.03, .scope = BiasScope::global_batch};
  EXPECT_EQ(waits_of_step(recipe, 2), 2 * (2 + 1) + 1);
  recipe.model.moe.router.bias.recentre = true;
  EXPECT_EQ(waits_of_step(recipe, 2), 2 * (2 + 1) + 2);
}

TEST(HostWaits, AreOneMorePerLayerWhereChoicesAreReadToSayWhatGoesWhere) {
  if (alone()) GTEST_SKIP() << "one rank sends nothing";
  std::vector<ParallelRecipe> layouts(3);
  layouts[0] = {.expert = 2, .zero = 1, .dispatcher = DispatcherKind::all_gather};
  layouts[1] = {.expert_tensor = 2, .zero = 1};
  layouts[2] = {.expert = 2, .zero = 1, .dispatch_rows = 1000};  // one round is enough
  for (const ParallelRecipe& layout : layouts) {
    Recipe recipe = recipe_of(2);
    recipe.parallel = layout;
    EXPECT_EQ(waits_of_step(recipe, 2), 2 * (2 * 2 + 1) + 1)
        << layout.dispatcher << " " << layout.expert_tensor << " " << layout.dispatch_rows;
  }
}

TEST(HostWaits, AreOneMorePerMicroStepWithTensorParallelism) {
  if (alone()) GTEST_SKIP() << "one rank holds the whole vocabulary";
  Recipe recipe = recipe_of(2);
  recipe.model.vocab_size = 64;
  recipe.parallel = {.tensor = 2, .expert = 2, .sequence = true, .zero = 1};
  EXPECT_EQ(waits_of_step(recipe, 2), 2 * (2 + 1 + 1) + 1);
}

}  // namespace
}  // namespace conclave
