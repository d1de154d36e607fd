// Import of what people start from: keys of config.json that few architectures have, and tensors that are
// stored under other names, packed, in another order, or with multipliers beside them.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "framework/store/safetensors.h"
#include "launch/tools/convert/architecture.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

struct Numbers {
  Dims shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Numbers>;

Tensors read_all(const fs::path& file) {
  const SafetensorsReader reader(file);
  Tensors tensors;
  for (const SafeTensor& tensor : reader.tensors()) {
    Numbers& numbers = tensors[tensor.name];
    numbers.shape = tensor.shape;
    numbers.values.resize(static_cast<std::size_t>(element_count(tensor.shape)));
    reader.read(tensor, numbers.values.data());
  }
  return tensors;
}

void write_all(const fs::path& file, const Tensors& tensors) {
  std::vector<SafeTensorPlan> plans;
  for (const auto& [name, numbers] : tensors) plans.push_back({.name = name, .shape = numbers.shape});
  SafetensorsWriter writer(file, plans);
  for (const auto& [name, numbers] : tensors) writer.write(numbers.values.data(), numbers.values.size());
  writer.finish();
}

class Origins : public testing::Test {
 protected:
  /// Exports a model, and lets a test make another class of the directory.
  void make(
      const Recipe& recipe, const Json& changes,
      const std::function<void(Tensors&)>& change_tensors = [](Tensors&) {}) {
    fs::remove_all(scratch_.path() / "run");
    fs::remove_all(directory_);
    checkpoint_ = save(recipe, scratch_.path() / "run");
    export_model({.checkpoint = scratch_.path() / "run", .directory = directory_}, silent);
    Json config = json_of(directory_ / "config.json");
    config.merge_patch(changes);
    put(directory_ / "config.json", config);
    Tensors tensors = read_all(directory_ / "model.safetensors");
    change_tensors(tensors);
    write_all(directory_ / "model.safetensors", tensors);
  }
  Recipe import(std::vector<std::string> overrides = {}) {
    run_ = scratch_.path() / join_text("imported", ++imports_);
    said_.clear();
    return import_model({.directory = directory_, .run = run_, .overrides = std::move(overrides)},
                        [&](const std::string& line) { said_ += line + "\n"; });
  }
  void expect_the_same_model(const Recipe& recipe) {
    const Recipe back = import();
    EXPECT_EQ(back.model.attention_bias, recipe.model.attention_bias);
    EXPECT_EQ(back.model.rope_scaling, recipe.model.rope_scaling);
    EXPECT_EQ(back.model.moe.first_k_dense_replace, recipe.model.moe.first_k_dense_replace);
    EXPECT_EQ(back.model.moe.dense_layers, recipe.model.moe.dense_layers);
    expect_same_tensors<float>(checkpoint_, *find_checkpoint(run_).path, "model");
  }

  ScratchDirectory scratch_;
  fs::path directory_ = scratch_.path() / "exported", checkpoint_, run_;
  std::string said_;
  int imports_ = 0;
};

Recipe stretched(const std::string& architecture, AttentionBias bias) {
  Recipe recipe = recipe_for(architecture);
  recipe.model.attention_bias = bias;
  recipe.model.rope_scaling = {.type = RopeFrequencies::Scaling::llama3,
                               .factor = 8,
                               .low_freq_factor = 1.5,
                               .high_freq_factor = 3,
                               .original_max_position_embeddings = 64};
  return recipe;
}

TEST_F(Origins, RareKeysGoThereAndBack) {
  Recipe anywhere = recipe_for("qwen3_moe");
  anywhere.model.moe.dense_layers = {2};
  anywhere.model.rope_scaling = {.type = RopeFrequencies::Scaling::linear, .factor = 4};
  for (const Recipe& recipe :
       {stretched("llama", AttentionBias::all), stretched("qwen2", AttentionBias::qkv),
        stretched("glm4_moe", AttentionBias::qkv), stretched("qwen3_moe", AttentionBias::all), anywhere}) {
    make(recipe, Json::object());
    expect_the_same_model(recipe);
  }
}

TEST_F(Origins, WhatAnArchitectureCannotSayIsNamed) {
  const auto reasons = [](const Architecture& architecture, const std::function<void(ModelRecipe&)>& change) {
    ModelRecipe model = recipe_for(architecture.model_type).model;
    EXPECT_EQ(why_not(architecture, model), "");
    change(model);
    return why_not(architecture, model);
  };
  const auto all_biases = [](ModelRecipe& m) { m.attention_bias = AttentionBias::all; };
  const auto unturned = [](ModelRecipe& m) { m.no_rope_layers = {0}; };
  const auto late_norms = [](ModelRecipe& m) { m.qk_norm_after_rope = true; };
  expect_words(reasons(glm4_moe, [](ModelRecipe& m) { m.moe.dense_layers = {2}; }),
               {"behind blocks with experts"});
  expect_words(reasons(glm4_moe, all_biases), {"all projections of its attention have biases"});
  expect_words(reasons(mixtral, all_biases), {"have biases"});
  expect_words(reasons(llama, [](ModelRecipe& m) { m.attention_bias = AttentionBias::qkv; }),
               {"have biases"});
  expect_words(reasons(qwen3_moe, late_norms), {"after they are turned"});
  for (const Architecture* one : architectures())
    expect_words(reasons(*one, unturned), {"turn nothing in some blocks"});
}

Json named(const std::string& type, const std::string& class_name, Json more = Json::object()) {
  more["model_type"] = type;
  more["architectures"] = {class_name};
  return more;
}

/// Puts the numbers of several tensors one behind the other into one.
void join(Tensors& tensors, const std::vector<std::string>& parts, const std::string& whole, Dims shape) {
  Numbers joined{std::move(shape), {}};
  for (const std::string& part : parts) {
    const std::vector<float>& values = tensors.at(part).values;
    joined.values.insert(joined.values.end(), values.begin(), values.end());
    tensors.erase(part);
  }
  EXPECT_EQ(static_cast<std::int64_t>(joined.values.size()), element_count(joined.shape));
  tensors[whole] = std::move(joined);
}

TEST_F(Origins, PackedExpertsAreTakenApart) {
  for (const char* name : {"qwen3_moe", "mixtral"}) {
    const Recipe recipe = recipe_for(name);
    const MoeRecipe& moe = recipe.model.moe;
    const bool is_mixtral = std::string(name) == "mixtral";
    make(recipe, Json::object(), [&](Tensors& tensors) {
      for (std::int64_t block = moe.first_k_dense_replace; block < recipe.model.num_hidden_layers; ++block) {
        const std::string mlp = join_text("model.layers.", block, ".mlp"),
                          theirs = is_mixtral ? join_text("model.layers.", block, ".block_sparse_moe") : mlp;
        std::vector<std::string> in, out;
        for (std::int64_t e = 0; e < moe.num_experts; ++e) {
          for (const char* matrix : {is_mixtral ? "w1" : "gate_proj", is_mixtral ? "w3" : "up_proj"})
            in.push_back(join_text(theirs, ".experts.", e, ".", matrix, ".weight"));
          out.push_back(join_text(theirs, ".experts.", e, is_mixtral ? ".w2" : ".down_proj", ".weight"));
        }
        join(tensors, in, mlp + ".experts.gate_up_proj",
             {moe.num_experts, 2 * moe.moe_intermediate_size, recipe.model.hidden_size});
        join(tensors, out, mlp + ".experts.down_proj",
             {moe.num_experts, recipe.model.hidden_size, moe.moe_intermediate_size});
        if (is_mixtral)
          join(tensors, {theirs + ".gate.weight"}, mlp + ".gate.weight",
               {moe.num_experts, recipe.model.hidden_size});
      }
    });
    expect_the_same_model(recipe);
  }
}

TEST_F(Origins, OtherShapesOfPackedExpertsAreRefused) {
  const Recipe recipe = recipe_for("mixtral");
  const MoeRecipe& moe = recipe.model.moe;
  make(recipe, Json::object(), [&](Tensors& tensors) {
    std::vector<std::string> down;
    for (std::int64_t e = 0; e < moe.num_experts; ++e)
      down.push_back(join_text("model.layers.0.block_sparse_moe.experts.", e, ".w2.weight"));
    join(tensors, down, "model.layers.0.mlp.experts.down_proj",
         {moe.num_experts, moe.moe_intermediate_size, recipe.model.hidden_size});  // the other way round
  });
  expect_words(sentence_of(Fault::data, [&] { import(); }), {"of another shape", "experts.down_proj is"});
}

TEST_F(Origins, FusedProjectionsAreTakenApart) {
  Recipe recipe = recipe_for("llama");
  recipe.model.num_key_value_heads = 1;  // so that the parts differ in their height
  make(recipe, named("phi3", "Phi3ForCausalLM"), [&](Tensors& tensors) {
    const ModelRecipe& m = recipe.model;
    for (std::int64_t block = 0; block < m.num_hidden_layers; ++block) {
      const std::string prefix = join_text("model.layers.", block), attention = prefix + ".self_attn.";
      join(tensors, {attention + "q_proj.weight", attention + "k_proj.weight", attention + "v_proj.weight"},
           attention + "qkv_proj.weight",
           {(m.num_attention_heads + 2 * m.num_key_value_heads) * m.head_dim, m.hidden_size});
      join(tensors, {prefix + ".mlp.gate_proj.weight", prefix + ".mlp.up_proj.weight"},
           prefix + ".mlp.gate_up_proj.weight", {2 * m.intermediate_size, m.hidden_size});
    }
  });
  expect_the_same_model(recipe);
}

TEST_F(Origins, PairsThatLieSideBySideAreTakenApart) {
  const Recipe recipe = recipe_for("llama");
  const auto half = static_cast<std::size_t>(recipe.model.head_dim / 2);
  make(recipe, named("ernie4_5", "Ernie4_5ForCausalLM", {{"tie_word_embeddings", false}}),
       [&](Tensors& tensors) {
         const auto width = static_cast<std::size_t>(recipe.model.hidden_size);
         for (auto& [name, numbers] : tensors) {
           if (!name.ends_with(".q_proj.weight") && !name.ends_with(".k_proj.weight")) continue;
           const std::vector<float> before = numbers.values;
           for (std::size_t row = 0; row < before.size() / width; ++row) {
             const std::size_t head = row / (2 * half), i = row % (2 * half);
             const std::size_t to = head * 2 * half + (i < half ? 2 * i : 2 * (i - half) + 1);
             std::copy_n(before.begin() + static_cast<std::ptrdiff_t>(row * width), width,
                         numbers.values.begin() + static_cast<std::ptrdiff_t>(to * width));
           }
         }
       });
  expect_the_same_model(recipe);
  expect_words(said_, {"the order in which Conclave turns positions"});
}

TEST_F(Origins, MultipliersGoIntoWeights) {
  Recipe recipe = recipe_for("llama");
  recipe.model.tie_word_embeddings = true;
  const Json multipliers = {{"embedding_multiplier", 4.0},
                            {"attention_multiplier", 0.5},
                            {"residual_multiplier", 0.25},
                            {"logits_scaling", 8.0}};
  make(recipe, named("granite", "GraniteForCausalLM", multipliers));
  import();
  const CheckpointReader before(checkpoint_), after(*find_checkpoint(run_).path);
  const double root = std::sqrt(static_cast<double>(recipe.model.head_dim));
  for (const auto& [name, factor] : {std::pair<const char*, double>{"model.embed_tokens.weight", 4},
                                     {"model.norm.weight", 1.0 / 32},
                                     {"model.layers.1.self_attn.q_proj.weight", 0.5 * root},
                                     {"model.layers.1.self_attn.k_proj.weight", 1},
                                     {"model.layers.1.self_attn.o_proj.weight", 0.25},
                                     {"model.layers.0.mlp.down_proj.weight", 0.25},
                                     {"model.layers.0.mlp.up_proj.weight", 1}}) {
    const auto one = before.read_all<float>(join_text("model/", name)),
               other = after.read_all<float>(join_text("model/", name));
    for (std::size_t i = 0; i < one.size(); ++i)
      ASSERT_FLOAT_EQ(other[i], static_cast<float>(factor * static_cast<double>(one[i]))) << name;
  }
}

TEST_F(Origins, WindowsThatReachAsFarAsSequencesAreTakenWithASentence) {
  const Recipe recipe = recipe_for("llama");
  const std::int64_t length = recipe.data.sequence_length;
  const auto with_window = [&](std::int64_t window) {
    make(recipe, named("mistral", "MistralForCausalLM", {{"sliding_window", window}}));
  };
  with_window(length);
  import();
  expect_words(said_, {join_text("sees ", length, " tokens back"), "the whole sequence"});
  with_window(length - 1);
  expect_words(sentence_of(Fault::data, [&] { import(); }),
               {"sliding_window", join_text(length - 1, " tokens back"),
                join_text("data.sequence_length=", length - 1)});
  import({join_text("data.sequence_length=", length - 1)});
  // What is exported as a class without a window does not promise more than its source could.
  fs::remove_all(scratch_.path() / "again");
  export_model({.checkpoint = run_, .directory = scratch_.path() / "again"}, silent);
  const Json config = json_of(scratch_.path() / "again" / "config.json");
  EXPECT_EQ(config["model_type"], "llama");
  EXPECT_EQ(config["max_position_embeddings"], length - 1);
}

TEST_F(Origins, ClassesThatConclaveCannotComputeSayWhatItLacks) {
  make(recipe_for("llama"), Json::object());
  for (const auto& [type, part] : {std::pair{"deepseek_v3", "multi-head latent attention"},
                                   {"qwen2_moe", "gate on the output of its shared expert"},
                                   {"gpt_oss", "attention sinks"}}) {
    Json config = json_of(directory_ / "config.json");
    config["model_type"] = type;
    put(directory_ / "config.json", config);
    expect_words(sentence_of(Fault::data, [&] { import(); }), {type, "Conclave lacks", part});
  }
}

}  // namespace
}  // namespace conclave
