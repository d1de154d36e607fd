// The warning about routers that no text trains is true: in one step's gradients, of every kind of router,
// with and without the losses that train them all the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "launch/train/recipe_rules.h"
#include "tests/launch/synthetic_trainer.h"

namespace conclave {
namespace {

struct Losses {
  double balance = 0, z = 0;
};

/// The largest gradient of the routers' weights after one step, relative to that of the experts'.
double router_gradient(Recipe recipe, const RouterRecipe& router, const Losses& losses) {
  recipe.model.moe.num_experts_per_tok = 1;
  recipe.model.moe.router = router;
  recipe.model.moe.router.z_loss_coefficient = losses.z;
  recipe.model.moe.balance = {{.estimator = Estimator::exact, .coefficient = losses.balance}};
  Mesh mesh(self_communicator(), {});
  const auto trainer = test::make_trainer(recipe, mesh);
  trainer->step();
  double routers = 0, experts = 0;
  trainer->gather_gradients([&](const std::string& name, const Tensor& whole) {
    double& largest = name.ends_with(".mlp.gate.weight") ? routers : experts;
    if (name.ends_with(".mlp.gate.weight") || name.find(".experts.") != std::string::npos)
      for (const double value : whole.to_host<double>()) largest = std::max(largest, std::abs(value));
  });
  EXPECT_GT(experts, 0);
  return routers / experts;
}

TEST(UntrainedRouter, IsWarnedOfWhereNoTextMovesIt) {
  const PoolRecipe one{.minimum = 1, .maximum = 1, .evaluation = 1};
  const std::vector<RouterRecipe> table = {
      {},
      {.norm_topk_prob = false},
      {.routed_scaling_factor = 2.5},
      {.n_group = 4, .topk_group = 2},
      {.norm_topk_prob = false, .pool = one},
      {.kind = RouterKind::sigmoid},
      {.kind = RouterKind::sigmoid, .norm_topk_prob = false},
      {.kind = RouterKind::sigmoid, .n_group = 4, .topk_group = 2},
  };
  int untrained = 0;
  for (const RouterRecipe& router : table) {
    const Recipe tiny = test::tiny_recipe();
    Recipe recipe = tiny;
    recipe.model.moe.num_experts_per_tok = 1;
    recipe.model.moe.router = router;
    bool is_warned = false;
    for (const std::string& sentence : warnings(recipe))
      is_warned |= sentence.find("trains no router") != std::string::npos;
    untrained += is_warned;
    const std::string name =
        join_text(router.kind, router.norm_topk_prob, router.n_group, router.pool.maximum);
    const double by_text = router_gradient(tiny, router, {});
    EXPECT_EQ(by_text < 1e-12, is_warned) << name << ": " << by_text;
    EXPECT_EQ(by_text > 1e-3, !is_warned) << name << ": " << by_text;
    // A router that chooses among one expert has a balance, and a size of its logits.
    EXPECT_GT(router_gradient(tiny, router, {.z = 0.01}), 1e-5) << name;
    if (router.pool.maximum > 0) continue;
    EXPECT_GT(router_gradient(tiny, router, {.balance = 0.1}), 1e-5) << name;
  }
  EXPECT_EQ(untrained, 6);
}

}  // namespace
}  // namespace conclave
