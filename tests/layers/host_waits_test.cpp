// How often the host waits for the device in a training step of one rank: for the row counts of each layer's
// dispatch, once per micro-step for what the routers left behind, and once at the end for the losses and the
// norm of the gradients. Counted exactly, on the emulated device: every other reading would be one more.
#include <gtest/gtest.h>

#include "framework/autograd/ops/elementwise.h"
#include "framework/tensor/host_copies.h"
#include "layers/balance_loss.h"
#include "layers/transformer.h"
#include "parallel/gradient_reducer.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace {

/// A step as Trainer::step walks it; the waits between its first forward and its update.
std::int64_t waits_of_step(const Recipe& recipe, Recompute recompute, std::int64_t micro_steps) {
  Device& device = emulated_device();
  constexpr std::int64_t sequences = 2;
  const std::shared_ptr<Communicator> self = self_communicator();
  ParameterSet parameters;
  const Transformer transformer(parameters, recipe.model, recompute);
  parameters.materialize(DType::float32, 3, device);
  GradientReducer reducer(parameters, Mesh::alone());
  BalanceLoss balance(recipe.model.moe, transformer.moe_layers(), *self);
  std::vector<ModelInput> inputs;
  for (std::int64_t m = 0; m < micro_steps; ++m)
    inputs.push_back(to_device(test::synthetic_batch(recipe, 0, m * sequences, sequences), device));
  parameters.clear_gradients();

  const std::int64_t before = device.host_waits();
  balance.begin_step(0, 100,
                     {.micro_batch_size = sequences,
                      .micro_steps = micro_steps,
                      .sequence_length = recipe.data.sequence_length});
  const Tensor sums = Tensor::zeros({1}, DType::float64, device);
  for (const ModelInput& input : inputs) {
    Tape tape;
    const Transformer::Result result = transformer.forward(tape, input);
    balance.begin_micro_step(result.statistics);
    const CrossEntropy loss =
        transformer.loss(tape, result.hidden, input, {.loss_scale = 0.01, .z_scale = 1e-5});
    const Variable objective = add_losses(tape, {loss.objective, balance.objective(tape, device)});
    kernels_of(sums).add_scaled(objective.value, 1.0, sums);
    tape.backward(objective);
  }
  reducer.finish();
  const HostCopies read({sums, reducer.squares()});
  const std::int64_t waits = device.host_waits() - before;
  EXPECT_GT(read.of<double>(0)[0], 0);
  EXPECT_GT(reducer.norm_of(read.of<double>(1)[0]), 0);
  const BalanceReport report = balance.end_step();
  EXPECT_EQ(device.host_waits() - before, waits) << "the report is made of what was read";
  EXPECT_EQ(report.counts.size(), static_cast<std::size_t>(transformer.moe_layers()) * 8);
  return waits;
}

Recipe recipe_of(std::int64_t layers) {
  Recipe recipe = test::tiny_recipe();
  recipe.model.num_hidden_layers = layers;
  recipe.model.moe.balance = {{.scope = "micro_batch", .coefficient = 0.1}};
  return recipe;
}

TEST(HostWaits, AreTheRowCountsOneReadingPerMicroStepAndOnePerStep) {
  for (const std::int64_t layers : {1, 3})
    for (const std::int64_t micro_steps : {1, 2, 4})
      EXPECT_EQ(waits_of_step(recipe_of(layers), Recompute::none, micro_steps),
                micro_steps * (layers + 1) + 1)
          << layers << " layers, " << micro_steps << " micro-steps";
}

TEST(HostWaits, AreNoneForADenseLayer) {
  Recipe recipe = recipe_of(3);
  recipe.model.moe.first_k_dense_replace = 2;
  EXPECT_EQ(waits_of_step(recipe, Recompute::none, 2), 2 * (1 + 1) + 1);
}

TEST(HostWaits, OfRowCountsComeAgainWhereBackwardRecomputes) {
  EXPECT_EQ(waits_of_step(recipe_of(2), Recompute::block, 2), 2 * (2 * 2 + 1) + 1);
}

TEST(HostWaits, AreOneMorePerLayerUnderACapacity) {
  Recipe recipe = recipe_of(2);
  recipe.model.moe.capacity_factor = 1;
  EXPECT_EQ(waits_of_step(recipe, Recompute::none, 2), 2 * (2 * 2 + 1) + 1);
}

TEST(HostWaits, AreNoMoreForAnyScopeOfBalancing) {
  for (const char* scope : {"sequence", "group", "data_parallel", "shuffle", "global_batch"}) {
    Recipe recipe = recipe_of(2);
    recipe.model.moe.balance = {
        {.scope = scope, .estimator = "running", .coefficient = 0.1, .balance_batch_size = 2}};
    recipe.model.moe.balance.push_back({.scope = "micro_batch", .coefficient = 0.01});
    EXPECT_EQ(waits_of_step(recipe, Recompute::none, 1), 2 + 1 + 1) << scope;
  }
}

}  // namespace
}  // namespace conclave
