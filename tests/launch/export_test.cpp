// Export: every architecture there and back bit by bit, names and numbers as the architecture wants them,
// tokenizers, refusals with reasons.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "framework/base/bfloat16.h"
#include "framework/data/tokenizer.h"
#include "framework/store/safetensors.h"
#include "launch/tools/convert/architecture.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

class Architectures : public testing::TestWithParam<const char*> {};

TEST_P(Architectures, ThereAndBackIsBitEqual) {
  const ScratchDirectory scratch;
  const Recipe recipe = recipe_for(GetParam());
  const fs::path checkpoint = save(recipe, scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "run",
                .directory = directory,
                .architecture = GetParam(),
                .shard_bytes = 30'000},
               silent);
  const Json config = json_of(directory / "config.json");
  EXPECT_EQ(config["transformers_version"], "4.51.0");
  EXPECT_EQ(config["model_type"], GetParam());
  EXPECT_EQ(config["eos_token_id"], 256);
  EXPECT_TRUE(fs::exists(directory / "model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(directory / "tokenizer.json"));
  EXPECT_FALSE(fs::exists(partial_path(directory)));

  const Recipe back = import_model({.directory = directory, .run = scratch.path() / "back"}, silent);
  ModelRecipe expected = recipe.model;  // what is no property of the model is as in a fresh recipe
  const ModelRecipe fresh;
  expected.moe.balance = fresh.moe.balance;
  if (config.contains("router_aux_loss_coef")) {
    expected.moe.balance = balance_of(config["router_aux_loss_coef"].get<double>(), recipe.model);
    EXPECT_DOUBLE_EQ(expected.moe.balance.at(0).coefficient, recipe.model.moe.balance.at(0).coefficient);
  }
  expected.moe.router.z_loss_coefficient = fresh.moe.router.z_loss_coefficient;
  if (expected.moe.router.bias.rate > 0) expected.moe.router.bias.rate = 0.001;
  for (const char* experts_alone :
       {"olmoe", "mixtral", "granitemoe", "granitemoeshared", "minimax_m2", "solar_open"})
    if (std::string(GetParam()) == experts_alone)
      expected.intermediate_size = expected.moe.moe_intermediate_size;
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
                         testing::Values("qwen3_moe", "olmoe", "mixtral", "granitemoe", "granitemoeshared",
                                         "deepseek", "minimax_m2", "dots1", "solar_open", "glm4_moe", "qwen3",
                                         "llama", "qwen2", "conclave"),
                         [](const auto& tested) { return std::string(tested.param); });

// The names of transformers, checked there by tests/interop, against what it is here.
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
      {"minimax_m2", "model.layers.0.block_sparse_moe.experts.3.w1.weight",
       "model.layers.0.mlp.experts.gate_proj.weight", 3},
      {"granitemoe", "model.layers.1.block_sparse_moe.router.layer.weight", "model.layers.1.mlp.gate.weight",
       -1},
      {"granitemoe", "model.layers.1.block_sparse_moe.output_linear.weight",
       "model.layers.1.mlp.experts.down_proj.weight", -1},
      {"granitemoeshared", "model.layers.0.shared_mlp.output_linear.weight",
       "model.layers.0.mlp.shared_experts.down_proj.weight", -1},
      {"deepseek", "model.layers.1.mlp.experts.2.up_proj.weight", "model.layers.1.mlp.experts.up_proj.weight",
       2},
      {"llama", "model.norm.weight", "model.norm.weight", -1},
  };
  for (const Name& name : table) {
    const ScratchDirectory scratch;
    const CheckpointReader checkpoint(save(recipe_for(name.architecture), scratch.path() / "run"));
    export_model({.checkpoint = checkpoint.path(),
                  .directory = scratch.path() / "exported",
                  .architecture = name.architecture},
                 silent);
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

// transformers' loss is num_experts_per_tok under even routing, and a mean over layers; ours is 1, and their
// sum.
TEST(Export, TheRoutersCoefficientWeighsAsMuchThere) {
  Recipe recipe = recipe_for("qwen3_moe");  // two of three blocks have experts, of which two are chosen
  recipe.model.moe.num_experts_per_tok = 2;
  recipe.model.moe.balance = {{.scope = BalanceScope::global_batch, .coefficient = 0.03},
                              {.scope = BalanceScope::sequence, .coefficient = 0.01}};
  EXPECT_DOUBLE_EQ(router_aux_loss_coefficient(recipe.model), 0.04 * 2 / 2);
  recipe.model.moe.layer_reduction = LayerReduction::mean;
  EXPECT_DOUBLE_EQ(router_aux_loss_coefficient(recipe.model), 0.04 / 2);
  recipe.model.moe.balance.push_back({.coefficient = 0.5, .expert_groups = 2});  // which is not known there
  EXPECT_DOUBLE_EQ(router_aux_loss_coefficient(recipe.model), 0.04 / 2);
  recipe.model.moe.balance.clear();
  EXPECT_EQ(router_aux_loss_coefficient(recipe.model), 0);
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
  recipe.training.precision = NumberFormat::fp64;
  const fs::path checkpoint = save(recipe, scratch.path() / "run");
  std::string said;
  export_model({.checkpoint = checkpoint, .directory = scratch.path() / "exported"},
               [&](const std::string& line) { said += line + "\n"; });
  expect_words(said, {"64 bits are rounded"});
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

/// A tokenizer.json of all bytes, the pair "th" and an end of document by this name.
std::string byte_pair_tokenizer(const std::string& end_of_document) {
  const ScratchDirectory scratch;
  save(recipe_for("mixtral"), scratch.path() / "run");
  export_model({.checkpoint = scratch.path() / "run", .directory = scratch.path() / "bytes"}, silent);
  Json file = json_of(scratch.path() / "bytes" / "tokenizer.json");  // of the tokenizer `bytes`
  file["model"]["vocab"]["th"] = 256;
  file["model"]["merges"] = {"t h"};
  file["added_tokens"].erase(1);  // padding
  file["added_tokens"][0]["id"] = 257;
  file["added_tokens"][0]["content"] = end_of_document;
  return file.dump();
}

TEST(Export, BytesAreATokenizerJsonThatConclaveReads) {
  const ScratchDirectory scratch;
  save(recipe_for("mixtral"), scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "run", .directory = directory}, silent);
  const auto exported = load_tokenizer(directory / "tokenizer.json");
  const std::string text = "bytes: \x01\xFF é 学習\n";
  EXPECT_EQ(exported->encode(text), load_tokenizer("bytes")->encode(text));
  EXPECT_EQ(exported->end_of_document(), 256);
}

TEST(Export, ATokenizerJsonGoesWithItAndComesBack) {
  const ScratchDirectory scratch;
  // Named as everybody does, or by a file beside it, which then goes along.
  for (const std::string end_of_document : {"<|endoftext|>", "<|end of page|>"}) {
    const bool named_beside = end_of_document == "<|end of page|>";
    const fs::path folder = scratch.path() / (named_beside ? "beside" : "alone");
    fs::create_directories(folder);
    std::ofstream(folder / "tokenizer.json") << byte_pair_tokenizer(end_of_document);
    if (named_beside)
      std::ofstream(folder / "tokenizer_config.json") << R"({"eos_token": "<|end of page|>", "kept": 7})";
    Recipe recipe = recipe_for("mixtral");
    recipe.model.vocab_size = 260;
    recipe.data.tokenizer = folder / "tokenizer.json";
    save(recipe, folder / "run");
    const fs::path directory = folder / "exported", back = folder / "back";
    export_model({.checkpoint = folder / "run", .directory = directory}, silent);
    EXPECT_EQ(json_of(directory / "config.json")["eos_token_id"], 257);
    EXPECT_EQ(json_of(directory / "tokenizer_config.json")["eos_token"], end_of_document);
    EXPECT_EQ(json_of(directory / "tokenizer_config.json").contains("kept"), named_beside);
    EXPECT_EQ(json_of(directory / "tokenizer.json"), json_of(folder / "tokenizer.json"));

    const Recipe imported = import_model({.directory = directory, .run = back}, silent);
    EXPECT_EQ(imported.data.tokenizer, back / "tokenizer.json");
    const auto tokenizer = load_tokenizer(imported.data.tokenizer);
    EXPECT_EQ(tokenizer->encode("the"), (std::vector<std::int32_t>{256, 'e'}));
    EXPECT_EQ(tokenizer->end_of_document(), 257);
  }
}

TEST(Export, SaysWhyAnArchitectureCannotExpressAModel) {
  struct Case {
    const char* architecture;
    const char* model_of;
    std::vector<std::string> words;
  };
  const std::vector<Case> table = {
      {"qwen3_moe", "mixtral", {"Qwen3MoeForCausalLM", "does not normalise queries"}},
      {"qwen3_moe", "olmoe", {"over all heads"}},
      {"olmoe", "qwen3_moe", {"first 1 block is dense", "each query and key head", "40 elements"}},
      {"mixtral", "olmoe", {"normalises queries and keys", "do not sum to 1"}},
      {"mixtral", "llama", {"none of its blocks has experts"}},
      {"glm4_moe", "qwen3_moe", {"softmax"}},
      {"granitemoe", "deepseek", {"shared experts", "first 1 block is dense", "do not sum to 1"}},
      {"deepseek", "conclave", {"normalises queries and keys", "4 groups", "selection bias"}},
      {"minimax_m2", "glm4_moe", {"4 groups", "each query and key head", "by 1.5", "shared experts"}},
      {"dots1", "solar_open", {"does not normalise queries and keys"}},
      {"solar_open", "dots1", {"it normalises queries and keys", "first 1 block is dense"}},
      {"llama", "mixtral", {"has experts"}},
      {"qwen3", "llama", {"does not normalise"}},
      {"qwen3_moe",
       "glm4_moe",
       {"sigmoid", "4 groups", "by 1.5", "selection bias", "shared experts", "4 of the 8"}},
      {"qwen3moe", "qwen3_moe", {"'qwen3moe' came", "did you mean 'qwen3_moe'"}},
  };
  for (const Case& one : table) {
    const ModelRecipe model = recipe_for(one.model_of).model;
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
TEST(Export, ReadsSizes) {
  EXPECT_EQ(bytes_from_text("5GB"), 5'000'000'000u);
  EXPECT_EQ(bytes_from_text("2GiB"), 2147483648u);
  EXPECT_EQ(bytes_from_text("1000"), 1000u);
  for (const char* text : {"", "GB", "5 GB", "0", "-1", "5gb", "99999999999GiB"})
    sentence_of(Fault::request, [&] { bytes_from_text(text); });
}

}  // namespace
}  // namespace conclave
