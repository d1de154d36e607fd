// The plan of `conclave validate` for examples/parallel, against what a step on 4 ranks does: bytes on the
// network by purpose, and the memory of parameters and optimizer states.
#include <gtest/gtest.h>

#include "launch/plan/plan.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "launch/train/trainer.h"
#include "tests/launch/synthetic.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

void check_plan(const std::string& file, const std::vector<std::string>& overrides) {
  SCOPED_TRACE(file);
  const std::shared_ptr<Communicator> world = test::mpi_world();
  const Recipe recipe = load_recipe(CONCLAVE_SOURCE_DIRECTORY "/examples/parallel/" + file, overrides);
  validate_recipe(recipe, world->size());
  const ParallelRecipe& p = recipe.parallel;
  Mesh mesh(world, {.tensor = p.tensor, .expert = p.expert, .expert_tensor = p.expert_tensor});
  Trainer trainer(recipe, mesh, [recipe](std::int64_t step, std::int64_t first, std::int64_t count) {
    return test::synthetic_batch(recipe, step, first, count);
  });
  const TrafficTable before = world->traffic();
  trainer.step({0.0});  // with the vote of a save, as training has it
  const auto bytes = [&](Purpose purpose) {
    return static_cast<double>(world->traffic()[purpose].bytes - before[purpose].bytes);
  };
  const NetworkPlan plan = plan_network(recipe, world->size());
  EXPECT_EQ(bytes(Purpose::gradients), plan.gradients);
  EXPECT_EQ(bytes(Purpose::parameters), plan.parameters);
  EXPECT_EQ(bytes(Purpose::activations), plan.activations);
  EXPECT_EQ(bytes(Purpose::statistics), plan.statistics);
  // With all_to_all the plan expects an even load, which the mean over the ranks comes near.
  const Tensor sums =
      Tensor::from(std::vector<double>{bytes(Purpose::dispatch), bytes(Purpose::combine)}, {2});
  world->all_reduce(sums, ReduceOp::sum, Purpose::agreement);
  const std::vector<double> means = sums.to_host<double>();
  const double tolerance = p.dispatcher == DispatcherKind::all_gather ? 0 : 0.1;
  EXPECT_NEAR(means[0] / world->size(), plan.dispatch, tolerance * plan.dispatch);
  EXPECT_NEAR(means[1] / world->size(), plan.combine, tolerance * plan.combine);

  const ParameterSet& parameters = trainer.model().parameters;
  EXPECT_EQ(static_cast<double>(parameters.values().bytes()), plan_memory(recipe, world->size()).parameters);
}

TEST(Plan, IsWhatAStepDoes) {
  check_plan("expert.yaml", {});
  check_plan("expert.yaml", {"parallel.dispatcher=all_gather", "parallel.dispatch_rows=0"});
  check_plan("tensor.yaml", {});
  check_plan("tensor.yaml", {"training.recompute=block"});
  check_plan("tensor.yaml",
             {"parallel.expert=1", "model.moe.capacity_factor=0.9", "training.recompute=block"});
  check_plan("sequence.yaml", {});
  check_plan("expert_tensor.yaml", {});
  check_plan("tensor.yaml", {"model.moe.balance=[{scope: sequence}, {scope: group, balance_batch_size: 8}]"});
  check_plan("tensor.yaml", {"model.moe.balance=[{scope: micro_batch}, {scope: data_parallel}]"});
  check_plan("zero.yaml", {});
  check_plan("zero.yaml", {"training.precision=fp64", "parallel.dispatcher=all_gather",
                           "model.moe.balance=[{scope: global_batch, estimator: exact}]"});
}

}  // namespace
}  // namespace conclave
