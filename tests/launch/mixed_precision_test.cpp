// training.precision: bf16 against fp32, on 1 to 4 ranks: losses and gradients within what rounding to 8 bits
// explains, whatever the layout and the device; master weights that gather steps too small for bfloat16;
// recomputation bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

Recipe recipe_in(NumberFormat precision) {
  Recipe recipe = test::tiny_recipe();
  recipe.model.vocab_size = 64;
  recipe.training.precision = precision;
  recipe.training.micro_batch_size = 2;
  return recipe;
}

Mesh mesh_of(const Recipe& recipe) {
  return Mesh(test::mpi_world(), degrees_of(recipe.parallel));
}

using Tensors = std::map<std::string, std::vector<float>>;

Tensors gradients_of(const Trainer& trainer) {
  Tensors all;
  trainer.gather_gradients(
      [&](const std::string& name, const Tensor& whole) { all[name] = whole.to_host<float>(); });
  return all;
}

double norm(const std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

/// |a - b| / |b|, Euclidean.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> difference(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return norm(difference) / norm(b);
}

/// The layouts that these ranks can have: each way of summing over ranks, and of exchanging rows.
std::vector<ParallelRecipe> layouts() {
  switch (test::mpi_world()->size()) {
    case 1:
      return {{}};
    case 2:
      return {{.zero = 1},
              {.expert = 2, .zero = 0},
              {.expert = 2, .zero = 1, .dispatcher = DispatcherKind::all_gather},
              {.tensor = 2, .zero = 0},
              {.tensor = 2, .sequence = true, .zero = 1},
              {.expert_tensor = 2, .zero = 0}};
    default:
      return {{.expert = 4, .zero = 1},
              {.tensor = 2, .expert = 2, .expert_tensor = 2, .sequence = true, .zero = 1}};
  }
}

/// The first step of `recipe` in bf16, in these layouts and on every device, against one CPU rank in fp32.
void expect_first_step_of_fp32(Recipe recipe, const std::vector<ParallelRecipe>& parallels) {
  recipe.training.precision = NumberFormat::fp32;
  Mesh alone(self_communicator(), {});
  const auto exact = test::make_trainer(recipe, alone);
  const double loss = exact->step().lm_loss;
  const Tensors expected = gradients_of(*exact);
  recipe.training.precision = NumberFormat::bf16;
  for (Device* device : test::mpi_devices())
    for (const ParallelRecipe& parallel : parallels) {
      recipe.parallel = parallel;
      SCOPED_TRACE(join_text(device->name(), ", tensor ", parallel.tensor, ", expert ", parallel.expert));
      Mesh mesh = mesh_of(recipe);
      const auto trainer = test::make_trainer(recipe, mesh, *device);
      EXPECT_NEAR(trainer->step().lm_loss, loss, 0.005 * loss);
      for (const auto& [name, gradient] : gradients_of(*trainer))
        EXPECT_LT(distance(gradient, expected.at(name)), 0.05) << name;
    }
}

TEST(MixedPrecision, LossesAndGradientsAreThoseOfFp32WithinTheRounding) {
  expect_first_step_of_fp32(recipe_in(NumberFormat::fp32), layouts());
}

// Heads 64 wide take the attention on tiles where a device has it.
TEST(MixedPrecision, LossesAndGradientsAreThoseOfFp32WithWideHeads) {
  Recipe recipe = recipe_in(NumberFormat::fp32);
  recipe.model.head_dim = 64;
  // Over so many tokens near ties between experts would be decided otherwise: all are chosen.
  recipe.model.moe.num_experts_per_tok = recipe.model.moe.num_experts;
  recipe.data.sequence_length = 40;  // more than the 32 rows of one step of a walk
  recipe.training.global_batch_size = 4;
  recipe.training.micro_batch_size = 1;
  expect_first_step_of_fp32(recipe, {layouts().back()});
}

TEST(MixedPrecision, OnCudaToo) {
  if (!test::why_no_cuda_for_all().empty())
    GTEST_SKIP() << "no bf16 trained on GPUs: " << test::why_no_cuda_for_all();
  EXPECT_EQ(test::mpi_devices().back()->kind(), DeviceKind::cuda);
}

/// Many steps are long on the emulated device.
std::vector<Device*> fast_devices() {
  std::vector<Device*> devices = test::mpi_devices();
  std::erase(devices, &emulated_device());
  return devices;
}

TEST(MixedPrecision, LearnsAsFp32Does) {
  for (Device* device : fast_devices())
    for (const ParallelRecipe& parallel : layouts()) {
      SCOPED_TRACE(device->name());
      Mesh alone(self_communicator(), {});
      Recipe recipe = recipe_in(NumberFormat::bf16);
      recipe.parallel = parallel;
      Mesh mesh = mesh_of(recipe);
      const auto exact = test::make_trainer(recipe_in(NumberFormat::fp32), alone),
                 rounded = test::make_trainer(recipe, mesh, *device);
      double first = 0, expected = 0, got = 0;
      for (int step = 0; step < 30; ++step) {
        expected = exact->step().lm_loss;
        got = rounded->step().lm_loss;
        if (step == 0) first = expected;
        ASSERT_NEAR(got, expected, 0.02 * expected) << "step " << step;
      }
      EXPECT_LT(got, 0.9 * first);
    }
}

TEST(MixedPrecision, MasterWeightsGatherStepsTooSmallForBfloat16) {
  Recipe recipe = recipe_in(NumberFormat::bf16);
  recipe.optimizer.lr = 1e-6;
  recipe.optimizer.schedule = {.kind = ScheduleKind::constant, .warmup_steps = 0};
  recipe.optimizer.weight_decay = 0;
  recipe.parallel = layouts()[0];
  for (Device* device : fast_devices()) {
    SCOPED_TRACE(device->name());
    Mesh mesh = mesh_of(recipe);
    const auto trainer = test::make_trainer(recipe, mesh, *device);
    const ParameterSet& parameters = trainer->model().parameters;
    const Parameter& norm = parameters.find("model.norm.weight");
    const auto master = [&] { return parameters.values().part(norm.offset, norm.shape).to_host<float>(); };
    for (int step = 0; step < 10; ++step) trainer->step();
    for (const float value : master()) {
      EXPECT_NE(value, 1.0f);
      EXPECT_NEAR(value, 1.0f, 2e-5f);
    }
    // Next to one, bfloat16 has no number nearer than 2^-8.
    for (const BFloat16 value : norm.value.to_host<BFloat16>()) EXPECT_EQ(to_float(value), 1.0f);
  }
}

TEST(MixedPrecision, RoutersScoreInFullPrecision) {
  Recipe recipe = recipe_in(NumberFormat::bf16);
  recipe.parallel = layouts()[0];
  Mesh mesh = mesh_of(recipe);
  const auto trainer = test::make_trainer(recipe, mesh);
  int routers = 0;
  for (const Parameter& parameter : trainer->model().parameters.all()) {
    const bool router = parameter.name.find("mlp.gate.weight") != std::string::npos;
    EXPECT_EQ(parameter.value.dtype(), router ? DType::float32 : DType::bfloat16) << parameter.name;
    routers += router;
  }
  EXPECT_EQ(routers, 2);
}

TEST(MixedPrecision, RecomputationChangesNothing) {
  for (Device* device : test::mpi_devices())
    for (const ParallelRecipe& parallel : layouts()) {
      if (device == &emulated_device() && parallel != layouts().back()) continue;
      SCOPED_TRACE(device->name());
      Recipe kept = recipe_in(NumberFormat::bf16), recomputed = kept;
      kept.parallel = recomputed.parallel = parallel;
      recomputed.training.recompute = Recompute::block;
      Mesh mesh = mesh_of(kept);
      const auto a = test::make_trainer(kept, mesh, *device),
                 b = test::make_trainer(recomputed, mesh, *device);
      EXPECT_EQ(a->step().lm_loss, b->step().lm_loss);
      EXPECT_EQ(gradients_of(*a), gradients_of(*b));
    }
}

}  // namespace
}  // namespace conclave
