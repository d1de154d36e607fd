// Small models for the tests of export, import and upcycling, their checkpoints, and words to look into both.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "framework/base/random.h"
#include "framework/store/checkpoint_directory.h"
#include "launch/tools/convert/export.h"
#include "launch/tools/convert/import.h"
#include "launch/train/model.h"
#include "launch/train/rank_parts.h"
#include "launch/train/recipe_text.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace fs = std::filesystem;
using Json = nlohmann::json;

using Kind = UpcycleOptions::Kind;

inline const auto silent = [](const std::string&) {};

/// A small model that the architecture can express: grouped queries, two blocks or three.
inline Recipe recipe_for(const std::string& architecture) {
  Recipe recipe = test::tiny_recipe();
  recipe.training.precision = NumberFormat::fp32;
  recipe.model.vocab_size = 264;
  recipe.model.moe.num_shared_experts = 0;
  if (architecture == "qwen3_moe") {
    recipe.model.moe.first_k_dense_replace = 1;
    recipe.model.num_hidden_layers = 3;
    recipe.model.head_dim = 10;
  }
  if (architecture == "olmoe") {
    recipe.model.qk_norm_over = QkNormOver::all_heads;
    recipe.model.moe.router.norm_topk_prob = false;
    recipe.model.tie_word_embeddings = true;
  }
  RouterRecipe& router = recipe.model.moe.router;
  for (const char* without : {"mixtral", "granitemoe", "granitemoeshared", "deepseek", "solar_open"})
    if (architecture == without) recipe.model.qk_norm = false;
  if (architecture == "granitemoe") recipe.model.head_dim = 10;
  if (architecture == "granitemoeshared") recipe.model.moe.num_shared_experts = 2;
  if (architecture == "deepseek") {
    recipe.model.moe.num_shared_experts = 2;
    recipe.model.moe.first_k_dense_replace = 1;
    router.norm_topk_prob = false;
  }
  if (architecture == "minimax_m2") {
    recipe.model.qk_norm_over = QkNormOver::all_heads;
    recipe.model.partial_rotary_factor = 0.5;
    router.kind = RouterKind::sigmoid;
    router.bias.rate = 0.01;
  }
  if (architecture == "dots1") recipe.model.moe.first_k_dense_replace = 1;
  if (architecture == "solar_open") recipe.model.moe.num_shared_experts = 2;
  if (architecture == "dots1" || architecture == "solar_open") {
    router = {.kind = RouterKind::sigmoid, .norm_topk_prob = false, .routed_scaling_factor = 1.5};
    router.n_group = 4;
    router.topk_group = 2;
    router.bias.rate = 0.01;
  }
  if (architecture == "conclave") {
    recipe.model.qk_norm_over = QkNormOver::all_heads;
    recipe.model.partial_rotary_factor = 0.5;
    recipe.model.moe.first_k_dense_replace = 1;
    recipe.model.moe.num_shared_experts = 1;
    router.n_group = 4;
    router.topk_group = 1;
    router.bias.rate = 0.01;
  }
  if (architecture == "glm4_moe") {
    recipe.model.partial_rotary_factor = 0.5;
    recipe.model.num_hidden_layers = 3;
    recipe.model.moe.num_shared_experts = 2;
    recipe.model.moe.first_k_dense_replace = 1;
    recipe.model.moe.router = {
        .kind = RouterKind::sigmoid, .routed_scaling_factor = 1.5, .n_group = 4, .topk_group = 2};
    recipe.model.moe.router.bias.rate = 0.01;
  }
  if (architecture == "qwen3" || architecture == "llama" || architecture == "qwen2")
    recipe.model.moe.first_k_dense_replace = recipe.model.num_hidden_layers;
  if (architecture == "llama" || architecture == "qwen2") recipe.model.qk_norm = false;
  if (architecture == "qwen2") recipe.model.attention_bias = AttentionBias::qkv;
  return recipe;
}

inline std::vector<double> drawn(const std::string& name, std::int64_t count) {
  const RandomKey key = RandomKey(3).with(name);
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(key.normal(static_cast<std::uint64_t>(i)));
  return values;
}

/// A checkpoint of the recipe's initial weights, and of some selection bias.
inline fs::path save(const Recipe& recipe, const fs::path& run) {
  const Model model(recipe);
  CheckpointWriter writer(run / "checkpoints", 3);
  for (const Parameter& parameter : model.parameters.all()) {
    if (parameter.name.ends_with(".bias")) {  // which begins as zeros
      const std::vector<double> values = drawn(parameter.name, parameter.shape.elements());
      parameter.value.copy_from(
          recipe.training.precision == NumberFormat::fp64
              ? Tensor::from(values, parameter.shape)
              : Tensor::from(std::vector<float>(values.begin(), values.end()), parameter.shape));
    }
    const Dims dims = dims_of(parameter.shape);
    if (recipe.training.precision == NumberFormat::fp64)
      writer.add("model/" + parameter.name, dims, parameter.value.to_host<double>().data());
    else
      writer.add("model/" + parameter.name, dims, parameter.value.to_host<float>().data());
  }
  for (const MethodState& state : model.feed_forwards.states().all) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < state.values.elements(); ++i)
      values.push_back(0.125 * static_cast<double>(i % 7 - 3));
    writer.add(state.name, dims_of(state.shape), values.data());
  }
  writer.set("recipe", to_yaml(recipe));
  return writer.commit();
}

inline Json json_of(const fs::path& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

inline void put(const fs::path& path, const Json& json) {
  std::ofstream(path) << json.dump();
}

template <class T>
void expect_same_tensors(const fs::path& a, const fs::path& b, const std::string& group) {
  const CheckpointReader one(a), other(b);
  const std::vector<std::string> names = one.names(group);
  EXPECT_EQ(names, other.names(group));
  EXPECT_FALSE(names.empty());
  for (const std::string& name : names) EXPECT_EQ(one.read_all<T>(name), other.read_all<T>(name)) << name;
}

}  // namespace conclave
