// Training on a device with streams of its own and collectives over NCCL (emulated: stand-ins for both; cuda
// where each rank has a GPU): for every axis, fold, dispatcher and optimizer sharding, losses, norms, counts
// and gradients are those of one CPU rank in float32. Checkpoints go from device to device.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "framework/device/stand_in/cuda_runtime.h"
#include "launch/train/checkpointing.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using test::name_of;

constexpr int steps = 3;

Recipe base_recipe() {
  Recipe recipe = test::tiny_recipe();
  recipe.model.vocab_size = 64;
  recipe.model.num_key_value_heads = 4;
  recipe.model.moe.first_k_dense_replace = 1;
  recipe.model.moe.balance.push_back({.scope = BalanceScope::sequence, .coefficient = 0.05});
  recipe.model.moe.router.bias = {.rate = 0.03, .scope = BiasScope::global_batch, .recentre = true};
  recipe.training.precision = NumberFormat::fp32;
  recipe.training.global_batch_size = 4;
  return recipe;
}

/// Each axis alone, axes folded, both dispatchers, bounded dispatch, sharded optimizers, recomputation.
std::vector<Recipe> layouts(std::int64_t ranks, const Recipe& base = base_recipe()) {
  std::vector<ParallelRecipe> folds;
  if (ranks == 1) folds = {{}};
  if (ranks == 2)
    folds = {{.zero = 0},
             {.zero = 1},
             {.expert = 2, .zero = 1},
             {.expert = 2, .dispatcher = DispatcherKind::all_gather},
             {.expert = 2, .zero = 1, .dispatch_rows = 7},
             {.tensor = 2, .zero = 1},
             {.tensor = 2, .expert = 2, .sequence = true, .zero = 0},
             {.expert_tensor = 2, .zero = 1}};
  if (ranks == 4)
    folds = {
        {.expert = 4, .zero = 1},
        {.expert = 2, .zero = 1},
        {.tensor = 2, .expert = 4, .sequence = true, .zero = 1, .dispatcher = DispatcherKind::all_gather},
        {.tensor = 2, .expert = 2, .expert_tensor = 2, .zero = 1}};
  std::vector<Recipe> recipes;
  for (const ParallelRecipe& fold : folds) {
    Recipe recipe = base;
    recipe.parallel = fold;
    recipe.training.recompute = recipes.size() % 3 == 1 ? Recompute::block : Recompute::none;
    recipe.training.micro_batch_size =
        recipes.size() % 2 == 0 ? 1 : std::min<std::int64_t>(2, 4 * fold.tensor / ranks);
    recipes.push_back(recipe);
  }
  return recipes;
}

Mesh mesh_of(const Recipe& recipe) {
  return Mesh(test::mpi_world(), degrees_of(recipe.parallel));
}

std::vector<Device*> other_devices() {
  std::vector<Device*> devices = test::mpi_devices();
  devices.erase(devices.begin());
  return devices;
}

using Tensors = std::map<std::string, std::vector<float>>;
Tensors gradients_of(const Trainer& trainer) {
  Tensors tensors;
  trainer.gather_gradients(
      [&](const std::string& name, const Tensor& whole) { tensors[name] = whole.to_host<float>(); });
  return tensors;
}
Tensors values_of(const Trainer& trainer) {
  Tensors tensors;
  trainer.gather_values(
      [&](const std::string& name, const Tensor& whole) { tensors[name] = whole.to_host<float>(); });
  return tensors;
}

double difference(double a, double b) {
  return std::abs(a - b) / std::max({std::abs(a), std::abs(b), 1e-30});
}

struct Oracle {
  std::vector<StepResult> results;
  std::vector<Tensors> gradients;
};
/// One CPU rank, the whole step in one micro-batch.
Oracle run_oracle(Recipe recipe) {
  recipe.training.micro_batch_size = recipe.training.global_batch_size;
  Mesh alone(self_communicator(), {});
  const auto trainer = test::make_trainer(recipe, alone, cpu_device());
  Oracle result;
  for (int step = 0; step < steps; ++step) {
    result.results.push_back(trainer->step());
    result.gradients.push_back(gradients_of(*trainer));
  }
  return result;
}
const Oracle& oracle() {
  static const Oracle made = run_oracle(base_recipe());
  return made;
}

void expect_equal(const Recipe& recipe, Device& device, const Oracle& oracle = conclave::oracle()) {
  SCOPED_TRACE(join_text(name_of(recipe), " on ", device.name()));
  Mesh mesh = mesh_of(recipe);
  const auto trainer = test::make_trainer(recipe, mesh, device);
  for (std::size_t step = 0; step < oracle.results.size(); ++step) {
    const StepResult result = trainer->step();
    const StepResult& expected = oracle.results[step];
    ASSERT_LT(difference(result.lm_loss, expected.lm_loss), 1e-5) << "step " << step;
    ASSERT_LT(difference(result.loss, expected.loss), 1e-5);
    ASSERT_LT(difference(result.gradient_norm, expected.gradient_norm), 1e-4);
    ASSERT_EQ(result.balance.counts, expected.balance.counts);
    for (const auto& [name, gradient] : gradients_of(*trainer)) {
      const std::vector<float>& want = oracle.gradients[step].at(name);
      ASSERT_EQ(gradient.size(), want.size()) << name;
      ASSERT_LT(test::worst_difference(gradient, want), 1e-3f) << name << " in step " << step;
    }
  }
}

TEST(DeviceLayout, LossesGradientsAndNormsAreThoseOfOneCpuRank) {
  for (Device* device : other_devices())
    for (const Recipe& recipe : layouts(test::mpi_world()->size()))
      ASSERT_NO_FATAL_FAILURE(expect_equal(recipe, *device));
}

// Documents that lie across tensor ranks are joined on the device.
TEST(DeviceLayout, PoolsOfDocumentsAreThoseOfOneCpuRank) {
  Recipe base = base_recipe();
  base.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 3};
  const Oracle pools = run_oracle(base);
  for (Device* device : other_devices())
    for (const Recipe& recipe : layouts(test::mpi_world()->size(), base))
      ASSERT_NO_FATAL_FAILURE(expect_equal(recipe, *device, pools));
  for (const auto mode : {emulated::StreamMode::deferred, emulated::StreamMode::racing})
    for (const Recipe& recipe : layouts(test::mpi_world()->size(), base)) {
      if (recipe.parallel.tensor == 1 ||
          (mode == emulated::StreamMode::deferred && recipe.parallel.zero == 0))  // as below
        continue;
      emulated::set_stream_mode(mode);
      expect_equal(recipe, emulated_device(), pools);
      emulated::set_stream_mode(emulated::StreamMode::eager);
    }
}

TEST(DeviceLayout, OnCudaToo) {
  if (!test::why_no_cuda_for_all().empty())
    GTEST_SKIP() << "no layout trained on GPUs: " << test::why_no_cuda_for_all();
  EXPECT_EQ(other_devices().back()->kind(), DeviceKind::cuda);
}

/// A directory that all ranks know; rank 0 makes and removes it.
class SharedFolder {
 public:
  SharedFolder() {
    std::string made = (std::filesystem::temp_directory_path() / "conclave-device-XXXXXX").string();
    if (test::mpi_world()->rank() == 0 && ::mkdtemp(made.data()) == nullptr) made = "";
    path_ = broadcast_text(*test::mpi_world(), made, 0);
  }
  ~SharedFolder() {
    test::mpi_world()->barrier();
    if (test::mpi_world()->rank() == 0) std::filesystem::remove_all(path_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(DeviceLayout, CheckpointsLoadOnAnotherDevice) {
  const auto world = test::mpi_world();
  const Recipe recipe = layouts(world->size()).back();
  for (Device* other : other_devices())
    for (const auto& [first, second] : {std::pair{&cpu_device(), other}, std::pair{other, &cpu_device()}}) {
      SCOPED_TRACE(join_text(first->name(), " -> ", second->name()));
      const SharedFolder folder;
      Mesh mesh = mesh_of(recipe), second_mesh = mesh_of(recipe);
      const auto trainer = test::make_trainer(recipe, mesh, *first);
      for (int step = 0; step < 2; ++step) trainer->step();
      Logger logger({.rank = 1});  // speaks only of failures
      Checkpointing checkpointing(folder.path(), {.least_share_bytes = 1024}, *world, logger);
      checkpointing.save(*trainer);
      checkpointing.finish();
      ASSERT_FALSE(checkpointing.last_failure());

      const auto loaded = test::make_trainer(recipe, second_mesh, *second);
      loaded->load(CheckpointReader(folder.path() + "/step-00000002"));
      EXPECT_EQ(values_of(*loaded), values_of(*trainer));
      EXPECT_EQ(loaded->model().feed_forwards.states().all.at(0).values.to_host<double>(),
                trainer->model().feed_forwards.states().all.at(0).values.to_host<double>());
      const StepResult went_on = loaded->step(), expected = trainer->step();
      EXPECT_LT(difference(went_on.lm_loss, expected.lm_loss), 1e-5);
      EXPECT_LT(difference(went_on.gradient_norm, expected.gradient_norm), 1e-4);
    }
}

// Whatever is queued runs as late as anybody can notice, or collectives as early as they may: with one wait
// for an event left out somewhere, a kernel or a collective would meet what was there before.
TEST(DeviceLayout, LateStreamsChangeNothing) {
  for (const emulated::StreamMode mode : {emulated::StreamMode::deferred, emulated::StreamMode::racing})
    for (const Recipe& recipe : layouts(test::mpi_world()->size())) {
      // The norm of what all replicas own alike is computed by the first alone: where all is late, the others
      // would not run what it waits for.
      if (mode == emulated::StreamMode::deferred && test::mpi_world()->size() > 1 &&
          recipe.parallel.zero == 0)
        continue;
      emulated::set_stream_mode(mode);
      expect_equal(recipe, emulated_device());
      emulated::set_stream_mode(emulated::StreamMode::eager);
    }
}

// Shared experts and the journey of tokens to the routed ones wait for the same input, and not for each
// other: late collectives come after them, early ones before.
TEST(DeviceLayout, SharedExpertsComputeWhileTokensTravel) {
  if (test::mpi_world()->size() != 2) GTEST_SKIP() << "two ranks share out the experts";
  Recipe recipe = base_recipe();
  recipe.parallel = {.expert = 2, .zero = 1};
  recipe.model.num_hidden_layers = 2;  // one of them dense
  recipe.model.moe.balance = {};
  recipe.training.micro_batch_size = 2;
  for (const auto mode : {emulated::StreamMode::deferred, emulated::StreamMode::racing}) {
    Mesh mesh = mesh_of(recipe);
    const auto trainer = test::make_trainer(recipe, mesh, emulated_device());
    emulated::set_stream_mode(mode);
    emulated::take_history();
    trainer->step();
    emulated::set_stream_mode(emulated::StreamMode::eager);
    const std::vector<std::string> history = emulated::take_history();
    const auto first = [&](const std::string& range) {
      return std::find_if(history.begin(), history.end(),
                          [&](const std::string& what) { return what.starts_with(range + ": "); });
    };
    ASSERT_NE(first("dispatch"), history.end());
    ASSERT_NE(first("shared_experts"), history.end());
    EXPECT_EQ(first("dispatch") < first("shared_experts"), mode == emulated::StreamMode::racing);
    EXPECT_LT(first("dispatch"), first("experts"));
    EXPECT_LT(first("experts"), first("combine"));
  }
}

}  // namespace
}  // namespace conclave
