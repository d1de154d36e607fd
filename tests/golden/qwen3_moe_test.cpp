// Six training steps against numbers that transformers' Qwen3MoeForCausalLM and torch's AdamW gave
// (qwen3_moe.json, made by make_qwen3_moe.py): attention, norms, routing, all losses, clipping, schedule and
// optimizer at once.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/train/recipe_text.h"
#include "launch/train/trainer.h"

namespace conclave {
namespace {

/// 32 bits; the same in make_qwen3_moe.py.
std::uint32_t noise(std::uint64_t seed, std::uint64_t i) {
  auto u = static_cast<std::uint32_t>(seed + i) * 2654435761u;
  u ^= u >> 15;
  u *= 2246822519u;
  return u ^ u >> 13;
}

void initialise(const Parameter& parameter) {
  std::uint64_t seed = 0;
  for (const char character : parameter.name)
    seed = (seed * 31 + static_cast<unsigned char>(character)) % 1000003;
  std::vector<double> values(static_cast<std::size_t>(parameter.value.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double value = noise(seed * 4096, i) / 4294967296.0 - 0.5;
    values[i] = parameter.shape.dims() == 1 ? 1 + value / 4 : value / 2;
  }
  parameter.value.copy_from(Tensor::from(values, parameter.shape));
}

Batch golden_batch(const Recipe& recipe, std::int64_t step, std::int64_t first, std::int64_t count) {
  const std::int64_t length = recipe.data.sequence_length;
  Batch batch{.sequences = count, .length = length};
  for (std::int64_t row = first; row < first + count; ++row) {
    const std::int64_t real = length - (row * 2) % 5, boundary = 4 + (step * 3 + row * 5) % 12;
    const auto token = [&](std::int64_t column) {
      const auto seed = static_cast<std::uint64_t>(step * 65536 + row * 256);
      return static_cast<std::int32_t>(noise(seed, static_cast<std::uint64_t>(column)) % (11 + 8 * row));
    };
    for (std::int64_t column = 0; column < length; ++column) {
      const bool has_target = column + 1 < real && column + 1 != boundary;
      batch.tokens.push_back(column < real ? token(column) : -1);
      batch.targets.push_back(has_target ? token(column + 1) : -1);
      const std::int64_t start = column >= real ? column : column < boundary ? 0 : boundary;
      batch.document_start.push_back(static_cast<std::int32_t>(start));
    }
    batch.domain.push_back(0);
  }
  return batch;
}

/// The largest relative difference of any number of the six steps.
double worst_difference(const std::vector<std::string>& overrides) {
  std::ifstream file(std::string(CONCLAVE_GOLDEN_DIRECTORY) + "/qwen3_moe.json");
  const auto expected = nlohmann::json::parse(file)["steps"];
  const Recipe recipe = load_recipe(std::string(CONCLAVE_GOLDEN_DIRECTORY) + "/qwen3_moe.yaml", overrides);
  EXPECT_EQ(expected.size(), 6u);
  Mesh mesh(self_communicator(), {});
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    return golden_batch(recipe, step, first, count);
  });
  for (const Parameter& parameter : trainer.model().parameters.all()) initialise(parameter);
  double worst = 0;
  for (const auto& numbers : expected) {
    const StepResult result = trainer.step();
    const auto compare = [&](const char* name, double value) {
      const double right = numbers.at(name);
      worst = std::max(worst, std::abs(value / right - 1));
    };
    compare("lm_loss", result.lm_loss);
    compare("loss", result.loss);
    compare("grad_norm", result.gradient_norm);
    compare("load_balance_loss", result.balance.load_balance_loss);
    compare("router_z_loss", result.balance.other("router_z_loss"));
  }
  return worst;
}

TEST(Golden, SixStepsEqualTransformersAndTorch) {
  for (const char* micro_batch_size : {"1", "2", "8"})
    for (const char* recompute : {"none", "block"}) {
      const double worst = worst_difference({std::string("training.micro_batch_size=") + micro_batch_size,
                                             std::string("training.recompute=") + recompute});
      EXPECT_LT(worst, 1e-9) << micro_batch_size << " " << recompute;
      RecordProperty(std::string(micro_batch_size) + "_" + recompute, std::to_string(worst * 1e15) + "e-15");
    }
}

// A test of the test: any other mathematics is seen.
TEST(Golden, OtherMathematicsIsSeen) {
  for (const char* change : {"model.rope_theta=500", "model.qk_norm=false", "model.rms_norm_eps=1e-2",
                             "model.num_key_value_heads=4", "model.moe.router.norm_topk_prob=false",
                             "model.moe.router.z_loss_coefficient=0.02", "model.moe.layer_reduction=mean",
                             "model.moe.num_experts_per_tok=3", "model.moe.balance.0.scope=micro_batch",
                             "model.moe.balance.0.estimator=running", "model.moe.balance.0.coefficient=0.1",
                             "training.lm_z_loss_coefficient=0", "optimizer.grad_clip=0",
                             "optimizer.weight_decay=0", "optimizer.betas=[0.9, 0.99]",
                             "optimizer.schedule.min_lr_ratio=0", "optimizer.schedule.kind=linear"}) {
    const double worst = worst_difference({change});
    EXPECT_GT(worst, 1e-4) << change;
    RecordProperty(change, std::to_string(worst));
  }
}

}  // namespace
}  // namespace conclave
