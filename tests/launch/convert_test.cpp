// Export and import in one process: every architecture there and back bit by bit, refusals with reasons,
// foreign directories that are wrong, upcycling that leaves the loss where it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "framework/autograd/ops/elementwise.h"
#include "framework/base/bfloat16.h"
#include "framework/data/tokenizer.h"
#include "framework/recipe/write.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/safetensors.h"
#include "launch/convert/architecture.h"
#include "launch/convert/export.h"
#include "launch/convert/import.h"
#include "launch/model.h"
#include "launch/rank_parts.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::json;

using Kind = UpcycleOptions::Kind;

const auto silent = [](const std::string&) {};

/// A small model that the architecture can express: grouped queries, two blocks or three.
Recipe recipe_for(const std::string& architecture) {
  Recipe recipe = test::tiny_recipe();
  recipe.training.precision = "fp32";
  recipe.model.vocab_size = 264;
  recipe.model.moe.num_shared_experts = 0;
  if (architecture == "qwen3_moe") {
    recipe.model.moe.first_k_dense_replace = 1;
    recipe.model.num_hidden_layers = 3;
    recipe.model.head_dim = 10;
  }
  if (architecture == "olmoe") {
    recipe.model.qk_norm_over = "all_heads";
    recipe.model.moe.router.norm_topk_prob = false;
    recipe.model.tie_word_embeddings = true;
  }
  if (architecture == "mixtral") recipe.model.qk_norm = false;
  if (architecture == "glm4_moe") {
    recipe.model.partial_rotary_factor = 0.5;
    recipe.model.num_hidden_layers = 3;
    recipe.model.moe.num_shared_experts = 2;
    recipe.model.moe.first_k_dense_replace = 1;
    recipe.model.moe.router = {
        .kind = "sigmoid", .routed_scaling_factor = 1.5, .n_group = 4, .topk_group = 2};
    recipe.model.moe.router.bias.rate = 0.01;
  }
  if (architecture == "qwen3" || architecture == "llama")
    recipe.model.moe.first_k_dense_replace = recipe.model.num_hidden_layers;
  if (architecture == "llama") recipe.model.qk_norm = false;
  return recipe;
}

/// A checkpoint of the recipe's initial weights, and of some selection bias.
fs::path save(const Recipe& recipe, const fs::path& run) {
  const Model model(recipe);
  CheckpointWriter writer(run / "checkpoints", 3);
  for (const Parameter& parameter : model.parameters.all()) {
    const Dims dims = dims_of(parameter.shape);
    if (recipe.training.precision == "fp64")
      writer.add("model/" + parameter.name, dims, parameter.value.to_host<double>().data());
    else
      writer.add("model/" + parameter.name, dims, parameter.value.to_host<float>().data());
  }
  if (const Tensor& bias = model.transformer.selection_bias(); bias.defined()) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < bias.elements(); ++i)
      values.push_back(0.125 * static_cast<double>(i % 7 - 3));
    writer.add(selection_bias_name, dims_of(bias.shape()), values.data());
  }
  writer.set("recipe", to_yaml(recipe));
  return writer.commit();
}

Json json_of(const fs::path& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

void put(const fs::path& path, const Json& json) {
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

class Architectures : public testing::TestWithParam<const char*> {};

TEST_P(Architectures, ThereAndBackIsBitEqual) {
  const ScratchDirectory scratch;
  const Recipe recipe = recipe_for(GetParam());
  const fs::path checkpoint = save(recipe, scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "run", .directory = directory, .shard_bytes = 30'000}, silent);
  const Json config = json_of(directory / "config.json");
  EXPECT_EQ(config["model_type"], GetParam());
  EXPECT_EQ(config["eos_token_id"], 256);
  EXPECT_TRUE(fs::exists(directory / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(directory / "tokenizer.json"));
  EXPECT_FALSE(fs::exists(partial_path(directory)));

  const Recipe back = import_model({.directory = directory, .run = scratch.path() / "back"}, silent);
  ModelRecipe expected = recipe.model;  // what is no property of the model is as in a fresh recipe
  const ModelRecipe fresh;
  expected.moe.balance = fresh.moe.balance;
  expected.moe.router.z_loss_coefficient = fresh.moe.router.z_loss_coefficient;
  if (expected.moe.router.bias.rate > 0) expected.moe.router.bias.rate = 0.001;
  const bool experts_alone = std::string(GetParam()) == "olmoe" || std::string(GetParam()) == "mixtral";
  if (experts_alone) expected.intermediate_size = expected.moe.moe_intermediate_size;
  if (expected.moe.first_k_dense_replace == expected.num_hidden_layers) {
    expected.moe.num_experts = fresh.moe.num_experts;
    expected.moe.num_experts_per_tok = fresh.moe.num_experts_per_tok;
    expected.moe.moe_intermediate_size = fresh.moe.moe_intermediate_size;
  }
  EXPECT_EQ(back.model, expected) << to_yaml(back);
  EXPECT_EQ(back.data.sequence_length, recipe.data.sequence_length);
  EXPECT_EQ(back.data.tokenizer, "bytes");
  const fs::path imported = *find_checkpoint(scratch.path() / "back").path;
  expect_same_tensors<float>(checkpoint, imported, "model");
  if (recipe.model.moe.router.bias.rate > 0) expect_same_tensors<double>(checkpoint, imported, "state");
  // It begins anew.
  const CheckpointReader reader(imported);
  EXPECT_EQ(reader.step(), 0);
  for (const std::string& name : reader.names("optimizer"))
    for (const float value : reader.read_all<float>(name)) ASSERT_EQ(value, 0) << name;
  EXPECT_EQ(reader.names("optimizer").size(), 2 * reader.names("model").size());
}

INSTANTIATE_TEST_SUITE_P(All, Architectures,
                         testing::Values("qwen3_moe", "olmoe", "mixtral", "glm4_moe", "qwen3", "llama"),
                         [](const auto& tested) { return std::string(tested.param); });

// What transformers calls a thing, checked there by tests/interop, against what it is here.
TEST(Export, NamesAreThoseOfTheArchitecture) {
  struct Name {
    const char *architecture, *theirs, *ours;
    std::int64_t row;
  };
  const std::vector<Name> table = {
      {"qwen3_moe", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight", -1},
      {"qwen3_moe", "model.layers.2.mlp.gate.weight", "model.layers.2.mlp.gate.weight", -1},
      {"qwen3_moe", "model.layers.2.mlp.experts.5.up_proj.weight",
       "model.layers.2.mlp.experts.up_proj.weight", 5},
      {"olmoe", "model.layers.1.self_attn.k_norm.weight", "model.layers.1.self_attn.k_norm.weight", -1},
      {"olmoe", "model.layers.1.mlp.experts.0.down_proj.weight",
       "model.layers.1.mlp.experts.down_proj.weight", 0},
      {"mixtral", "model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.mlp.gate.weight", -1},
      {"mixtral", "model.layers.0.block_sparse_moe.experts.3.w1.weight",
       "model.layers.0.mlp.experts.gate_proj.weight", 3},
      {"mixtral", "model.layers.0.block_sparse_moe.experts.7.w2.weight",
       "model.layers.0.mlp.experts.down_proj.weight", 7},
      {"mixtral", "model.layers.1.block_sparse_moe.experts.2.w3.weight",
       "model.layers.1.mlp.experts.up_proj.weight", 2},
      {"glm4_moe", "model.layers.1.mlp.shared_experts.down_proj.weight",
       "model.layers.1.mlp.shared_experts.down_proj.weight", -1},
      {"glm4_moe", "model.layers.2.mlp.experts.4.gate_proj.weight",
       "model.layers.2.mlp.experts.gate_proj.weight", 4},
      {"llama", "model.norm.weight", "model.norm.weight", -1},
  };
  for (const Name& name : table) {
    const ScratchDirectory scratch;
    const CheckpointReader checkpoint(save(recipe_for(name.architecture), scratch.path() / "run"));
    export_model({.checkpoint = checkpoint.path(), .directory = scratch.path() / "exported"}, silent);
    const SafetensorsReader weights(scratch.path() / "exported/model.safetensors");
    const auto found = std::find_if(weights.tensors().begin(), weights.tensors().end(),
                                    [&](const SafeTensor& tensor) { return tensor.name == name.theirs; });
    ASSERT_NE(found, weights.tensors().end()) << name.theirs;
    std::vector<float> values(static_cast<std::size_t>(element_count(found->shape)));
    weights.read(*found, values.data());
    const std::vector<float> all = checkpoint.read_all<float>(std::string("model/") + name.ours);
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(std::max<std::int64_t>(name.row, 0)) *
                                         static_cast<std::ptrdiff_t>(values.size());
    EXPECT_TRUE(std::equal(values.begin(), values.end(), first)) << name.theirs;
    if (name.row < 0) {
      EXPECT_EQ(values.size(), all.size());
    }
  }
}

TEST(Export, RoundsToBFloat16AndKeepsTheSelectionBias) {
  const ScratchDirectory scratch;
  const fs::path checkpoint = save(recipe_for("glm4_moe"), scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported/";  // with a slash at its end
  export_model({.checkpoint = checkpoint, .directory = directory, .bfloat16 = true}, silent);
  EXPECT_EQ(json_of(directory / "config.json")["torch_dtype"], "bfloat16");
  EXPECT_FALSE(fs::exists(directory / "model.safetensors.index.json"));
  const SafetensorsReader weights(directory / "model.safetensors");
  const CheckpointReader reader(checkpoint);
  const std::string router = "model.layers.1.mlp.gate.weight";
  const std::vector<float> whole = reader.read_all<float>("model/" + router);
  int seen = 0;
  for (const SafeTensor& tensor : weights.tensors()) {
    const bool is_bias = tensor.name.ends_with("e_score_correction_bias");
    EXPECT_EQ(tensor.dtype, is_bias ? "F32" : "BF16") << tensor.name;
    seen += is_bias;
    if (tensor.name != router) continue;
    std::vector<float> values(whole.size());
    weights.read(tensor, values.data());
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], to_float(to_bfloat16(whole[i])));
    ++seen;
  }
  EXPECT_EQ(seen, 3);
}

TEST(Export, AFloat64CheckpointComesBackRounded) {
  const ScratchDirectory scratch;
  Recipe recipe = recipe_for("mixtral");
  recipe.training.precision = "fp64";
  const fs::path checkpoint = save(recipe, scratch.path() / "run");
  export_model({.checkpoint = checkpoint, .directory = scratch.path() / "exported"}, silent);
  import_model({.directory = scratch.path() / "exported",
                .run = scratch.path() / "back",
                .overrides = {"training.precision=fp64"}},
               silent);
  const CheckpointReader before(checkpoint), after(*find_checkpoint(scratch.path() / "back").path);
  for (const std::string& name : before.names("model")) {
    const std::vector<double> exact = before.read_all<double>(name), rounded = after.read_all<double>(name);
    ASSERT_EQ(exact.size(), rounded.size());
    for (std::size_t i = 0; i < exact.size(); ++i)
      ASSERT_EQ(rounded[i], static_cast<float>(exact[i])) << name;
  }
}

TEST(Export, ASentencePieceModelGoesWithIt) {
  const ScratchDirectory scratch;
  const std::string prefix = scratch.path() / "pieces";
  int line = 0;
  train_sentencepiece(
      [&](std::string& text) {
        text = join_text("the cat sat on the mat ", line, " and the dog ran to the cat");
        return ++line <= 200;
      },
      prefix, {.vocab_size = 300, .kind = "bpe"});
  Recipe recipe = recipe_for("mixtral");
  recipe.model.vocab_size = 304;
  recipe.data.tokenizer = prefix + ".model";
  save(recipe, scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported", run = scratch.path() / "back";
  export_model({.checkpoint = scratch.path() / "run", .directory = directory}, silent);
  const auto tokenizer = load_tokenizer(recipe.data.tokenizer);
  EXPECT_EQ(json_of(directory / "config.json")["eos_token_id"], tokenizer->end_of_document());
  const Json json = json_of(directory / "tokenizer.json");
  EXPECT_EQ(json["model"]["type"], "BPE");
  EXPECT_EQ(json["model"]["vocab"].size(), 300u);
  EXPECT_EQ(json["model"]["vocab"]["</s>"], tokenizer->end_of_document());
  // Merges in the order of the pieces they make, whose ids ascend.
  std::int64_t last = -1;
  for (const Json& merge : json["model"]["merges"]) {
    std::string piece = merge.get<std::string>();
    piece.erase(piece.find(' '), 1);
    const std::int64_t id = json["model"]["vocab"].at(piece);
    EXPECT_GE(id, last);
    last = id;
  }
  EXPECT_GT(last, 265);

  const Recipe back = import_model({.directory = directory, .run = run}, silent);
  EXPECT_EQ(back.data.tokenizer, run / "tokenizer.model");
  EXPECT_EQ(load_tokenizer(back.data.tokenizer)->encode("the dog sat"), tokenizer->encode("the dog sat"));
  recipe.model.vocab_size = 270;
  save(recipe, scratch.path() / "narrow");
  expect_words(sentence_of(Fault::request,
                           [&] {
                             export_model(
                                 {.checkpoint = scratch.path() / "narrow", .directory = scratch.path() / "x"},
                                 silent);
                           }),
               {"300 ids", "270", "--tokenizer"});
}

TEST(Export, SaysWhyAnArchitectureCannotExpressAModel) {
  struct Case {
    const char* architecture;
    const char* model_of;
    std::function<void(ModelRecipe&)> change;
    std::vector<std::string> words;
  };
  const std::vector<Case> table = {
      {"qwen3_moe", "mixtral", {}, {"Qwen3MoeForCausalLM", "does not normalise queries"}},
      {"qwen3_moe", "olmoe", {}, {"over all heads"}},
      {"olmoe", "qwen3_moe", {}, {"first 1 block is dense", "each query and key head", "40 elements"}},
      {"mixtral", "olmoe", {}, {"normalises queries and keys", "do not sum to 1"}},
      {"mixtral", "llama", {}, {"none of its blocks has experts"}},
      {"glm4_moe", "qwen3_moe", {}, {"softmax", "no shared experts"}},
      {"llama", "mixtral", {}, {"has experts"}},
      {"qwen3", "llama", {}, {"does not normalise"}},
      {"qwen3_moe",
       "glm4_moe",
       {},
       {"sigmoid", "4 groups", "by 1.5", "selection bias", "shared experts", "4 of the 8"}},
      {"",
       "qwen3_moe",
       [](ModelRecipe& m) { m.moe.num_shared_experts = 1; },
       {"No architecture", "Qwen3MoeForCausalLM: it has shared experts", "Glm4MoeForCausalLM: its routers",
        "LlamaForCausalLM: it has experts"}},
      {"qwen3moe", "qwen3_moe", {}, {"'qwen3moe' came", "did you mean 'qwen3_moe'"}},
  };
  for (const Case& one : table) {
    ModelRecipe model = recipe_for(one.model_of).model;
    if (one.change) one.change(model);
    expect_words(sentence_of(Fault::request, [&] { choose_architecture(one.architecture, model); }),
                 one.words);
  }
}

TEST(Export, LeavesNothingBehindWhereItFails) {
  const ScratchDirectory scratch;
  const fs::path checkpoint = save(recipe_for("mixtral"), scratch.path() / "run"),
                 there = scratch.path() / "there";
  fs::create_directory(there);
  std::ofstream(there / "file") << "mine";
  expect_words(sentence_of(Fault::request,
                           [&] { export_model({.checkpoint = checkpoint, .directory = there}, silent); }),
               {"is there already"});
  EXPECT_TRUE(fs::exists(there / "file"));
  const fs::path directory = scratch.path() / "exported";
  EXPECT_THROW(
      export_model({.checkpoint = checkpoint, .directory = directory, .tokenizer = "/no/such"}, silent),
      Error);
  flip_byte(checkpoint / "rank-00000.h5", fs::file_size(checkpoint / "rank-00000.h5") / 2);
  expect_words(sentence_of(Fault::data,
                           [&] { export_model({.checkpoint = checkpoint, .directory = directory}, silent); }),
               {"rank-00000.h5", "checksum"});
  EXPECT_FALSE(fs::exists(directory));
  EXPECT_FALSE(fs::exists(partial_path(directory)));
}

/// A directory to hurt, exported once for each test.
class Import : public testing::Test {
 protected:
  void SetUp() override {
    save(recipe_for("qwen3_moe"), scratch_.path() / "run");
    export_model({.checkpoint = scratch_.path() / "run", .directory = directory_, .shard_bytes = 30'000},
                 silent);
  }
  std::string refusal(Fault fault = Fault::data, std::vector<std::string> overrides = {}) {
    const fs::path run = scratch_.path() / "imported";
    const std::string sentence = sentence_of(fault, [&] {
      import_model({.directory = directory_, .run = run, .overrides = std::move(overrides)}, silent);
    });
    EXPECT_TRUE(list_checkpoints(run / "checkpoints").empty());
    return sentence;
  }
  ScratchDirectory scratch_;
  fs::path directory_ = scratch_.path() / "exported";
};

TEST_F(Import, AConfigThatConclaveCannotComputeIsASentence) {
  struct Change {
    const char* key;
    Json value;  // null: taken out
    std::vector<std::string> words;
  };
  const std::vector<Change> table = {
      {"model_type", "gpt2", {"\"gpt2\"", "qwen3_moe, olmoe"}},
      {"hidden_size", nullptr, {"hidden_size is missing"}},
      {"hidden_size", "32", {"hidden_size", "whole number"}},
      {"hidden_size", 0, {"hidden_size", "from 1"}},
      {"num_key_value_heads", 3, {"num_key_value_heads", "3 key-value heads"}},
      {"hidden_act", "gelu", {"hidden_act", "SwiGLU"}},
      {"attention_bias", true, {"attention_bias", "no biases"}},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}, {"rope_scaling", "yarn", "scaled"}},
      {"use_sliding_window", true, {"use_sliding_window"}},
      {"mlp_only_layers", {1}, {"block 1", "come first"}},
      {"decoder_sparse_step", 2, {"decoder_sparse_step"}},
      {"num_experts_per_tok", 100, {"num_experts_per_tok", "100"}},
      {"head_dim", 7, {"head_dim", "even"}},
      {"hidden_size", 33, {"hidden_size", "tensors are not those", "of another shape", "more"}},
      {"num_hidden_layers", 4, {"missing: model.layers.3.input_layernorm.weight"}},
      {"num_hidden_layers", 2, {"unexpected: model.layers.2"}},
      {"num_hidden_layers", 2'000'000'000, {"2000000000 blocks", "tensors"}},
      {"tie_word_embeddings", "yes", {"tie_word_embeddings", "true or false"}},
  };
  const Json good = json_of(directory_ / "config.json");
  for (const Change& change : table) {
    Json config = good;
    if (change.value.is_null())
      config.erase(change.key);
    else
      config[change.key] = change.value;
    put(directory_ / "config.json", config);
    const std::string sentence = refusal();
    if (std::string(change.key) == "hidden_size" && change.value == 33)
      expect_words(sentence, {change.words.begin() + 1, change.words.end()});
    else
      expect_words(sentence, change.words);
  }
  std::ofstream(directory_ / "config.json") << "{";
  expect_words(refusal(), {"config.json", "not JSON"});
  fs::remove(directory_ / "config.json");
  expect_words(refusal(), {"There is no", "config.json"});
}

TEST_F(Import, AnIndexThatIsWrongIsASentence) {
  const fs::path path = directory_ / "model.safetensors.index.json";
  const Json good = json_of(path);
  Json index = good;
  index["weight_map"]["model.norm.weight"] = "../model.safetensors";
  put(path, index);
  expect_words(refusal(), {"model.norm.weight", "beside it"});
  index["weight_map"]["model.norm.weight"] = good["weight_map"]["model.embed_tokens.weight"];
  put(path, index);
  expect_words(refusal(), {"model.norm.weight is not in"});
  put(path, Json::object());
  expect_words(refusal(), {"no weight_map"});
  put(path, good);
  const std::string file = good["weight_map"]["model.norm.weight"];
  fs::resize_file(directory_ / file, fs::file_size(directory_ / file) - 4);
  expect_words(refusal(), {file, "cut short"});
  fs::remove(directory_ / file);
  expect_words(refusal(), {file, "safetensors"});
}

TEST_F(Import, WritesOverNothingAndKeepsTheShape) {
  const fs::path run = scratch_.path() / "run";
  expect_words(
      sentence_of(Fault::request, [&] { import_model({.directory = directory_, .run = run}, silent); }),
      {"holds a run already"});
  expect_words(refusal(Fault::request, {"model.hidden_size=64"}), {"shape of the model"});
  expect_words(sentence_of(Fault::request,
                           [&] {
                             import_model(
                                 {.directory = directory_,
                                  .run = scratch_.path() / "other",
                                  .upcycle = UpcycleOptions{.kind = Kind::copy, .experts = 4, .top_k = 2}},
                                 silent);
                           }),
               {"has experts already"});
}

/// Cross-entropy of one batch by the newest checkpoint of a run.
double loss_of(const fs::path& run) {
  const CheckpointReader checkpoint(*find_checkpoint(run).path);
  const Recipe recipe = recipe_of(checkpoint);
  Model model(recipe);
  load_model(checkpoint, model);
  Recipe data = test::tiny_recipe();
  data.model.vocab_size = recipe.model.vocab_size;
  const ModelInput input = to_device(test::synthetic_batch(data, 0, 0, 4));
  Tape tape(Tape::Mode::forward_only);
  const Transformer::Result result = model.transformer.forward(tape, input);
  return model.transformer.loss(tape, result.hidden, input, {.loss_scale = 0.05}).objective.value.item();
}

TEST(Upcycle, LeavesTheLossWhereItWas) {
  const ScratchDirectory scratch;
  Recipe recipe = recipe_for("qwen3");
  recipe.training.precision = "fp64";
  save(recipe, scratch.path() / "dense");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "dense", .directory = directory}, silent);
  const std::vector<std::string> wide = {"training.precision=fp64"};
  import_model({.directory = directory, .run = scratch.path() / "same", .overrides = wide}, silent);
  const double dense = loss_of(scratch.path() / "same");

  struct Case {
    UpcycleOptions options;
    const char* change;  // of the recipe; empty: none
    bool equal;
  };
  constexpr const char *not_renormalised = "model.moe.router.norm_topk_prob=false",
                       *sigmoid = "model.moe.router.kind=sigmoid",
                       *scaled = "model.moe.router.routed_scaling_factor=2.5";
  const std::vector<Case> table = {
      {{.kind = Kind::copy, .experts = 4, .top_k = 1}, "", true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2}, "", true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 3}, sigmoid, true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 4}, not_renormalised, true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2, .router_range = 0}, not_renormalised, true},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2}, not_renormalised, false},
      {{.kind = Kind::copy, .experts = 4, .top_k = 2}, scaled, true},
      {{.kind = Kind::split, .experts = 4, .top_k = 4}, "", true},
      {{.kind = Kind::split, .experts = 8, .top_k = 4}, "", true},
      {{.kind = Kind::split, .experts = 12, .top_k = 6, .parts = 3}, "", true},
      {{.kind = Kind::split, .experts = 12, .top_k = 6, .parts = 3, .router_range = 0}, sigmoid, true},
      {{.kind = Kind::split, .experts = 8, .top_k = 4, .parts = 8}, "", false},
      {{.kind = Kind::split, .experts = 8, .top_k = 3, .parts = 2}, "", false},
  };
  for (std::size_t i = 0; i < table.size(); ++i) {
    const fs::path run = scratch.path() / ("upcycled" + std::to_string(i));
    std::vector<std::string> overrides = wide;
    if (*table[i].change != 0) overrides.emplace_back(table[i].change);
    const Recipe made = import_model(
        {.directory = directory, .run = run, .overrides = overrides, .upcycle = table[i].options}, silent);
    EXPECT_EQ(made.model.moe.num_experts, table[i].options.experts);
    EXPECT_EQ(made.model.moe.first_k_dense_replace, 0);
    const double difference = std::abs(loss_of(run) / dense - 1);
    if (table[i].equal)
      EXPECT_LT(difference, 1e-12) << "case " << i;
    else
      EXPECT_GT(difference, 1e-7) << "case " << i;
    RecordProperty("case_" + std::to_string(i), std::to_string(difference * 1e15) + "e-15");
  }
}

TEST(Upcycle, RefusesWhatDoesNotDivide) {
  const ModelRecipe dense = recipe_for("qwen3").model;
  const auto refused = [&](const UpcycleOptions& options) {
    return sentence_of(Fault::request, [&] { parts_of(options, dense); });
  };
  expect_words(refused({.kind = Kind::copy}), {"--experts 0"});
  expect_words(refused({.kind = Kind::copy, .experts = 2, .top_k = 4}), {"--top-k 4"});
  expect_words(refused({.kind = Kind::copy, .experts = 4, .top_k = 2, .parts = 2}), {"--parts 2", "split"});
  expect_words(refused({.kind = Kind::split, .experts = 6, .top_k = 4}), {"6 experts", "multiple of 4"});
  expect_words(refused({.kind = Kind::split, .experts = 10, .top_k = 5}),
               {"intermediate_size: 48", "5 parts"});
}

TEST(Export, ReadsSizes) {
  EXPECT_EQ(bytes_from_text("5GB"), 5'000'000'000u);
  EXPECT_EQ(bytes_from_text("2GiB"), 2147483648u);
  EXPECT_EQ(bytes_from_text("1000"), 1000u);
  for (const char* text : {"", "GB", "5 GB", "0", "-1", "5gb", "99999999999GiB"})
    sentence_of(Fault::request, [&] { bytes_from_text(text); });
}

}  // namespace
}  // namespace conclave
