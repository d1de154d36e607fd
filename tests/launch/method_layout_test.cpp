// Routers of methods on every layout: losses, norms, counts and every gathered gradient equal those of one
// rank with the whole step in one micro-batch. Recomputation changes no bit, and bf16 stays near.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "layers/moe/methods.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

constexpr int steps = 3;

Recipe base_recipe() {
  Recipe recipe = test::tiny_recipe();
  recipe.model.vocab_size = 64;
  recipe.model.num_key_value_heads = 4;
  recipe.model.moe.balance.push_back({.scope = BalanceScope::sequence, .coefficient = 0.05});
  recipe.training.micro_batch_size = 2;
  return recipe;
}

Recipe cosine(RouterKind kind) {
  Recipe recipe = base_recipe();
  recipe.model.moe.router.kind = kind;
  recipe.model.moe.router.norm_topk_prob = false;
  recipe.model.moe.router.score = CosineScoreRecipe{.width = 5, .temperature = 0.2};
  recipe.optimizer.lr = 0.03;
  return recipe;
}

Recipe masked(std::int64_t top_k) {
  Recipe recipe = base_recipe();
  recipe.model.moe.num_experts_per_tok = top_k;
  recipe.model.moe.router.norm_topk_prob = false;
  recipe.model.moe.router.vocabulary = {.visible = 4, .frequent_share = 0.6};
  return recipe;
}

/// Together with other masks and limits.
Recipe crowded() {
  Recipe recipe = cosine(RouterKind::softmax);
  recipe.model.moe.capacity_factor = 0.7;
  recipe.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 3};
  return recipe;
}

std::vector<Recipe> all_recipes() {
  return {cosine(RouterKind::softmax), cosine(RouterKind::sigmoid), masked(1), masked(3), crowded()};
}

std::unique_ptr<Trainer> trainer_of(const Recipe& recipe, Mesh& mesh) {
  auto trainer = test::make_trainer(recipe, mesh);
  std::vector<std::int64_t> count_of_id;
  for (std::int64_t id = 0; id < recipe.model.vocab_size; ++id) count_of_id.push_back(100 - id % 7 * 13);
  learn_from_text(recipe.model.moe, count_of_id, trainer->model().feed_forwards.states());
  return trainer;
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

struct Trained {
  std::vector<StepResult> results;
  std::vector<Tensors> gradients;
};

Trained trained(const Recipe& recipe, Mesh& mesh) {
  const auto trainer = trainer_of(recipe, mesh);
  Trained all;
  for (int step = 0; step < steps; ++step) {
    all.results.push_back(trainer->step());
    all.gradients.push_back(gradients_of(*trainer));
  }
  return all;
}

Trained oracle(Recipe recipe) {
  recipe.training.micro_batch_size = recipe.training.global_batch_size;
  Mesh alone(self_communicator(), {});
  return trained(recipe, alone);
}

std::vector<ParallelRecipe> folds() {
  switch (test::mpi_world()->size()) {
    case 1:
      return {{}};
    case 2:
      return {{.zero = 1},
              {.expert = 2},
              {.expert = 2, .dispatcher = DispatcherKind::all_gather},
              {.tensor = 2},
              {.tensor = 2, .expert = 2, .sequence = true},
              {.expert_tensor = 2}};
    default:
      return {{.tensor = 2, .expert = 2, .sequence = true, .zero = 1},
              {.tensor = 2, .expert = 4, .dispatch_rows = 7},
              {.tensor = 4, .expert = 2, .expert_tensor = 2, .sequence = true},
              {.expert = 4, .dispatcher = DispatcherKind::all_gather}};
  }
}

double difference(double a, double b) {
  return std::abs(a - b) / std::max({std::abs(a), std::abs(b), 1e-30});
}

TEST(MethodLayout, EveryFoldEqualsOneRank) {
  for (const Recipe& base : all_recipes()) {
    const Trained expected = oracle(base);
    int turn = 0;
    for (const ParallelRecipe& fold : folds()) {
      Recipe recipe = base;
      recipe.parallel = fold;
      recipe.training.recompute = turn % 2 == 1 ? Recompute::block : Recompute::none;
      recipe.training.micro_batch_size = turn++ % 3 == 0 ? 1 : 2;
      SCOPED_TRACE(test::name_of(recipe));
      Mesh mesh(test::mpi_world(), degrees_of(recipe.parallel));
      const Trained got = trained(recipe, mesh);
      for (std::size_t step = 0; step < steps; ++step) {
        const StepResult &a = got.results[step], &b = expected.results[step];
        ASSERT_LT(difference(a.lm_loss, b.lm_loss), 1e-10);
        ASSERT_LT(difference(a.loss, b.loss), 1e-10);
        ASSERT_LT(difference(a.gradient_norm, b.gradient_norm), 1e-10);
        ASSERT_LT(difference(a.balance.load_balance_loss, b.balance.load_balance_loss), 1e-10);
        ASSERT_EQ(a.balance.counts, b.balance.counts);
        const std::vector<double> temperatures = b.balance.layers_of("router_temperature");
        for (std::size_t layer = 0; layer < temperatures.size(); ++layer)
          ASSERT_LT(difference(a.balance.layers_of("router_temperature").at(layer), temperatures[layer]),
                    1e-10);
        for (const auto& [name, gradient] : got.gradients[step])
          ASSERT_LT(test::worst_difference(gradient, expected.gradients[step].at(name)), 1e-10)
              << name << " in step " << step;
      }
    }
  }
}

TEST(MethodLayout, RecomputationChangesNoBit) {
  for (Recipe recipe : all_recipes()) {
    recipe.parallel.expert = test::mpi_world()->size();
    recipe.training.micro_batch_size = 1;
    Mesh mesh(test::mpi_world(), degrees_of(recipe.parallel));
    const Trained kept = trained(recipe, mesh);
    recipe.training.recompute = Recompute::block;
    const Trained again = trained(recipe, mesh);
    EXPECT_EQ(kept.gradients, again.gradients);
  }
}

TEST(MethodLayout, TheTemperatureOfEachLayerIsReportedAndLearned) {
  Mesh mesh(test::mpi_world(), {});
  const Trained all = trained(cosine(RouterKind::softmax), mesh);
  const std::vector<double> first = all.results[0].balance.layers_of("router_temperature"),
                            last = all.results[steps - 1].balance.layers_of("router_temperature");
  EXPECT_EQ(first, (std::vector<double>{0.2, 0.2}));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_NE(last[0], last[1]);
  EXPECT_NEAR(all.results[steps - 1].balance.other("router_temperature"), (last[0] + last[1]) / 2, 1e-15);
}

TEST(MethodLayout, RareIdsHaveOneExpertWhateverTopKIs) {
  Mesh mesh(test::mpi_world(), {});
  const Trained all = trained(masked(3), mesh);
  const std::vector<std::int64_t>& counts = all.results[0].balance.counts;
  std::int64_t assignments = 0;
  for (const std::int64_t count : counts) assignments += count;
  const std::int64_t tokens = all.results[0].tokens;
  EXPECT_GT(assignments, 2 * tokens);      // of two layers, one expert at least
  EXPECT_LT(assignments, 2 * 3 * tokens);  // and three at most
}

TEST(MethodLayout, InBf16LossesAreNearThoseOfFp32) {
  for (Recipe recipe : all_recipes()) {
    recipe.training.precision = NumberFormat::fp32;
    Mesh mesh(test::mpi_world(), {});
    const Trained whole = trained(recipe, mesh);
    recipe.training.precision = NumberFormat::bf16;
    const Trained rounded = trained(recipe, mesh);
    // Later steps choose other experts here and there.
    for (std::size_t step = 0; step < steps; ++step)
      EXPECT_LT(difference(rounded.results[step].lm_loss, whole.results[step].lm_loss),
                step == 0 ? 0.01 : 0.05);
  }
}

}  // namespace
}  // namespace conclave
