// Layout invariance: the same model and global batch on every number of ranks and with every micro-batch size
// give the losses and gradients of the oracle, one rank with the whole step in one micro-batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using test::make_trainer;
using test::synthetic_batch;
using test::tiny_recipe;

double difference(double a, double b) {
  return std::abs(a - b) / std::max({std::abs(a), std::abs(b), 1e-30});
}

/// max |a - b| / max |b|
double difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_host<double>(), y = b.to_host<double>();
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, std::abs(x[i] - y[i]));
    largest = std::max(largest, std::abs(y[i]));
  }
  return worst / largest;
}

/// The recipes that the ranks at hand can run: micro-batch sizes from one sequence to a replica's whole
/// share.
std::vector<Recipe> layouts(const Recipe& base, int ranks) {
  std::vector<Recipe> recipes;
  for (std::int64_t micro = 1; micro * ranks <= base.training.global_batch_size; micro *= 2)
    for (const Recompute recompute : {Recompute::none, Recompute::block}) {
      recipes.push_back(base);
      recipes.back().training.micro_batch_size = micro;
      recipes.back().training.recompute = recompute;
    }
  return recipes;
}

Recipe oracle_of(Recipe recipe) {
  recipe.training.micro_batch_size = recipe.training.global_batch_size;
  recipe.training.recompute = Recompute::none;
  return recipe;
}

TEST(Layout, GradientsAndNormEqualTheOracle) {
  for (const bool tied : {false, true}) {
    Recipe base = tiny_recipe();
    base.model.tie_word_embeddings = tied;
    base.model.moe.first_k_dense_replace = tied ? 1 : 0;
    base.model.moe.layer_reduction = tied ? LayerReduction::mean : LayerReduction::sum;
    Mesh alone(self_communicator(), {}), mesh(test::mpi_world(), {});
    for (const Recipe& recipe : layouts(base, test::mpi_world()->size())) {
      const auto oracle = make_trainer(oracle_of(recipe), alone), trainer = make_trainer(recipe, mesh);
      for (int step = 0; step < 3; ++step) {
        const StepResult expected = oracle->step(), result = trainer->step();
        EXPECT_LT(difference(result.lm_loss, expected.lm_loss), 1e-12);
        EXPECT_LT(difference(result.loss, expected.loss), 1e-12);
        EXPECT_LT(difference(result.balance.load_balance_loss, expected.balance.load_balance_loss), 1e-12);
        EXPECT_LT(difference(result.balance.other("router_z_loss"), expected.balance.other("router_z_loss")),
                  1e-12);
        EXPECT_LT(difference(result.gradient_norm, expected.gradient_norm), 1e-10);
        EXPECT_EQ(result.balance.counts, expected.balance.counts);
        EXPECT_EQ(result.target_tokens, expected.target_tokens);
        const auto& parameters = trainer->model().parameters.all();
        for (std::size_t i = 0; i < parameters.size(); ++i)
          EXPECT_LT(difference(parameters[i].gradient.finished(),
                               oracle->model().parameters.all()[i].gradient.finished()),
                    1e-10)
              << parameters[i].name << " with micro-batches of " << recipe.training.micro_batch_size
              << ", recompute " << recipe.training.recompute;
      }
    }
  }
}

TEST(Layout, LossesInFp32StayEqualOverEightSteps) {
  Recipe base = tiny_recipe();
  base.training.precision = NumberFormat::fp32;
  Mesh alone(self_communicator(), {}), mesh(test::mpi_world(), {});
  for (const Recipe& recipe : layouts(base, test::mpi_world()->size())) {
    const auto oracle = make_trainer(oracle_of(recipe), alone), trainer = make_trainer(recipe, mesh);
    for (int step = 0; step < 8; ++step)
      EXPECT_LT(difference(trainer->step().lm_loss, oracle->step().lm_loss), 1e-5) << "step " << step;
  }
}

TEST(Layout, LossesInFp64StayEqualOverFiftySteps) {
  Recipe recipe = tiny_recipe();
  recipe.training.micro_batch_size = 2;
  Mesh alone(self_communicator(), {}), mesh(test::mpi_world(), {});
  const auto oracle = make_trainer(oracle_of(recipe), alone), trainer = make_trainer(recipe, mesh);
  for (int step = 0; step < 50; ++step)
    EXPECT_LT(difference(trainer->step().lm_loss, oracle->step().lm_loss), 1e-8) << "step " << step;
}

TEST(Layout, BatchRampKeepsTheSequenceOfSamples) {
  Recipe recipe = tiny_recipe();
  recipe.training.global_batch_size = 16;
  recipe.training.batch_ramp = {.start_batch_size = 8, .increment = 4, .steps_per_increment = 1};
  std::vector<std::int64_t> counts;
  Mesh mesh(test::mpi_world(), {});
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    counts.resize(static_cast<std::size_t>(step) + 1);
    counts.back() += count;
    return synthetic_batch(recipe, step, first, count);
  });
  for (int step = 0; step < 4; ++step) trainer.step();
  const std::int64_t ranks = test::mpi_world()->size();
  EXPECT_EQ(counts, (std::vector<std::int64_t>{8 / ranks, 12 / ranks, 16 / ranks, 16 / ranks}));
}

// A test of the test: one replica's gradient scaled by 1 / ranks, the best-known mistake, must be seen.
TEST(Layout, SeesGradientsThatWereAveraged) {
  const int ranks = test::mpi_world()->size();
  if (ranks == 1) return;
  Recipe recipe = tiny_recipe();
  Mesh alone(self_communicator(), {}), mesh(test::mpi_world(), {});
  const auto oracle = make_trainer(oracle_of(recipe), alone), trainer = make_trainer(recipe, mesh);
  oracle->step();
  trainer->step();
  const Tensor gradients = trainer->model().parameters.gradients();
  kernels_of(gradients).add_scaled(gradients, 1.0 / ranks - 1, gradients);
  EXPECT_GT(difference(gradients, oracle->model().parameters.gradients()), 0.1);
}

TEST(Layout, CollectiveCallsPerStep) {
  // `warm` costs one fused integer all-reduce per micro-step for the counts of all layers, micro_batch none.
  for (const BalanceScope scope : {BalanceScope::global_batch, BalanceScope::micro_batch}) {
    Recipe recipe = tiny_recipe();
    recipe.model.moe.balance = {{.scope = scope, .estimator = Estimator::warm, .coefficient = 0.1}};
    const auto world = test::mpi_world();
    Mesh mesh(world, {});
    const auto trainer = make_trainer(recipe, mesh);
    const Traffic before = world->traffic()[Purpose::statistics];
    trainer->step();
    const Traffic& after = world->traffic()[Purpose::statistics];
    const std::int64_t micro_steps = 8 / world->size();
    // Beside the counts: totals of the step, sums of the losses, sums of probabilities, the gradient norm.
    EXPECT_EQ(after.calls - before.calls, 4 + (scope == BalanceScope::global_batch ? micro_steps : 1));
  }
}

}  // namespace
}  // namespace conclave
