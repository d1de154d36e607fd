// GGUF files: every key and tensor of every architecture against the checkpoint, refusals with reasons, and
// no file where something went wrong. Outside, tests/interop/gguf_files.py has llama.cpp compute the same.
#include <algorithm>

#include "framework/base/bfloat16.h"
#include "launch/tools/commands/export.h"
#include "launch/tools/convert/gguf/architecture.h"
#include "launch/tools/convert/gguf/export.h"
#include "launch/tools/convert/gguf/number_type.h"
#include "launch/tools/convert/hub_tensors.h"
#include "layers/moe/methods/selection_bias.h"
#include "layers/moe/recipe.h"
#include "tests/launch/convert_models.h"
#include "tests/launch/gguf_reader.h"

namespace conclave {
namespace {

using gguf::NumberType;
using test::GgufReader;

/// A small model that llama.cpp's architecture computes, and no other before it in the list.
Recipe recipe_of_llama_cpp(const std::string& architecture) {
  Recipe recipe = recipe_for(architecture == "qwen3moe"     ? "mixtral"
                             : architecture == "glm4moe"    ? "glm4_moe"
                             : architecture == "dots1"      ? "glm4_moe"
                             : architecture == "minimax-m2" ? "glm4_moe"
                             : architecture == "olmoe" || architecture == "qwen3" || architecture == "llama"
                                 ? architecture
                                 : "mixtral");
  ModelRecipe& model = recipe.model;
  if (architecture == "qwen3moe") model.qk_norm = true, model.head_dim = 10;
  if (architecture == "olmoe") model.tie_word_embeddings = false, model.num_key_value_heads = 4;
  if (architecture == "llama") model.head_dim = 12;
  if (architecture == "deepseek") {
    model.moe.num_shared_experts = 2;
    model.moe.first_k_dense_replace = 1;
    model.moe.router.norm_topk_prob = false;
    model.moe.router.routed_scaling_factor = 2;
  }
  if (architecture == "granitemoe") model.moe.num_shared_experts = 2;
  if (architecture == "minimax-m2") {
    model.qk_norm_over = QkNormOver::all_heads;
    model.moe.num_shared_experts = model.moe.first_k_dense_replace = 0;
    model.moe.router.routed_scaling_factor = 1;
  }
  if (architecture == "dots1") model.partial_rotary_factor = 1, model.num_key_value_heads = 4;
  return recipe;
}

/// llama.cpp's name of each of Conclave's, written out once more.
std::string expected_name(std::string name, bool is_glm) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"model.layers.", "blk."},
      {"post_attention_layernorm", is_glm ? "post_attention_norm" : "ffn_norm"},
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"mlp.experts.gate_proj", "ffn_gate_exps"},
      {"mlp.experts.up_proj", "ffn_up_exps"},
      {"mlp.experts.down_proj", "ffn_down_exps"},
      {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
      {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
      {"mlp.shared_experts.down_proj", "ffn_down_shexp"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.gate.", "ffn_gate_inp."}};
  for (const auto& [ours, theirs] : table)
    if (const std::size_t at = name.find(ours); at != std::string::npos)
      name.replace(at, ours.size(), theirs);
  return name;
}

/// Where llama.cpp turns neighbours: row 2i of a head was row i, and row 2i + 1 was row i + half.
std::vector<float> with_neighbours(const std::vector<float>& matrix, std::int64_t heads, std::int64_t width,
                                   std::int64_t columns) {
  std::vector<float> result(matrix.size());
  const auto row_at = [&](std::int64_t head, std::int64_t row) { return (head * width + row) * columns; };
  for (std::int64_t head = 0; head < heads; ++head)
    for (std::int64_t i = 0; i < width / 2; ++i)
      for (std::int64_t side = 0; side < 2; ++side)
        std::copy_n(matrix.begin() + row_at(head, i + side * width / 2), columns,
                    result.begin() + row_at(head, 2 * i + side));
  return result;
}

class LlamaCpp : public testing::TestWithParam<const char*> {};

TEST_P(LlamaCpp, FileHasEveryKeyAndTensor) {
  const ScratchDirectory scratch;
  const Recipe recipe = recipe_of_llama_cpp(GetParam());
  const std::string name = std::string(GetParam()) == "mixtral as llama" ? "llama" : GetParam();
  const ModelRecipe& m = recipe.model;
  const CheckpointReader checkpoint(save(recipe, scratch.path() / "run"));
  const fs::path path = scratch.path() / "made" / "model.gguf";
  gguf::export_model(
      {.checkpoint = scratch.path() / "run", .file = path, .architecture = name == "dots1" ? "dots1" : ""},
      silent);
  EXPECT_FALSE(fs::exists(partial_path(path)));
  GgufReader file(path);

  const bool has_experts = count_moe_layers(m) > 0;
  const bool has_shared = has_experts && (name == "glm4moe" || name == "dots1" || name == "deepseek");
  Json keys = {{"general.architecture", name},
               {"general.type", "model"},
               {"general.name", "tiny"},
               {"general.file_type", 0},
               {"tokenizer.ggml.model", "gpt2"},
               {"tokenizer.ggml.pre", "qwen2"},
               {"tokenizer.ggml.bos_token_id", 256},
               {"tokenizer.ggml.eos_token_id", 256},
               {"tokenizer.ggml.padding_token_id", 257},
               {"tokenizer.ggml.add_bos_token", false},
               {"tokenizer.ggml.add_eos_token", false}};
  const auto expect_key = [&](const std::string& key, const Json& value) { keys[name + "." + key] = value; };
  expect_key("vocab_size", 264);
  expect_key("context_length", 12);
  expect_key("embedding_length", 32);
  expect_key("block_count", m.num_hidden_layers);
  expect_key("feed_forward_length", has_experts && m.moe.first_k_dense_replace == 0 ? 16 : 48);
  expect_key("attention.head_count", 4);
  expect_key("attention.head_count_kv", m.num_key_value_heads);
  expect_key("attention.key_length", m.head_dim);
  expect_key("attention.value_length", m.head_dim);
  expect_key("attention.layer_norm_rms_epsilon", static_cast<float>(m.rms_norm_eps));
  expect_key("rope.freq_base", 10000.0f);
  const bool turns_half = name == "glm4moe" || name == "minimax-m2";
  expect_key("rope.dimension_count", turns_half ? m.head_dim / 2 : m.head_dim);
  if (has_experts) {
    expect_key("expert_count", 8);
    expect_key("expert_used_count", 2);
    expect_key("expert_feed_forward_length", 16);
    expect_key("expert_gating_func", m.moe.router.kind == RouterKind::sigmoid ? 2 : 1);
    expect_key("expert_weights_norm", m.moe.router.norm_topk_prob);
    expect_key("expert_weights_scale", static_cast<float>(m.moe.router.routed_scaling_factor));
    expect_key("leading_dense_block_count", m.moe.first_k_dense_replace);
  }
  if (has_shared) expect_key("expert_shared_count", 2);
  if (m.moe.router.n_group > 1) {
    expect_key("expert_group_count", 4);
    expect_key("expert_group_used_count", 2);
  }
  if (name == "granitemoe") {
    expect_key("logit_scale", 1.0f);
    expect_key("expert_shared_feed_forward_length", 32);
  }
  for (const char* list : {"tokens", "token_type", "merges"})
    file.keys.erase(std::string("tokenizer.ggml.") + list);  // other tests look at these
  EXPECT_EQ(file.keys, keys);

  const bool turns_neighbours = name == "llama" || name == "deepseek" || name == "granitemoe";
  std::size_t known = 0;
  for (const auto& [parameter, dims] : parameter_dims(m)) {
    const std::string theirs = expected_name(parameter, name == "glm4moe");
    ASSERT_TRUE(file.tensors.contains(theirs)) << parameter << " as " << theirs;
    EXPECT_EQ(file.tensors[theirs].dims, std::vector<std::int64_t>(dims.rbegin(), dims.rend())) << theirs;
    std::vector<float> expected = checkpoint.read_all<float>("model/" + parameter);
    if (turns_neighbours && theirs.ends_with("attn_q.weight"))
      expected = with_neighbours(expected, m.num_attention_heads, m.head_dim, m.hidden_size);
    if (turns_neighbours && theirs.ends_with("attn_k.weight"))
      expected = with_neighbours(expected, m.num_key_value_heads, m.head_dim, m.hidden_size);
    EXPECT_EQ(file.numbers(theirs), expected) << theirs;
    ++known;
  }
  if (m.moe.router.bias.rate > 0) {
    const std::vector<double> bias = checkpoint.read_all<double>(selection_bias_name);
    for (std::int64_t layer = 0; layer < count_moe_layers(m); ++layer, ++known) {
      const std::vector<float> theirs =
          file.numbers(join_text("blk.", m.moe.first_k_dense_replace + layer, ".exp_probs_b.bias"));
      EXPECT_TRUE(std::equal(theirs.begin(), theirs.end(), bias.begin() + layer * 8)) << layer;
    }
  }
  EXPECT_EQ(file.tensors.size(), known);
}

INSTANTIATE_TEST_SUITE_P(All, LlamaCpp,
                         testing::Values("qwen3moe", "olmoe", "llama", "mixtral as llama", "glm4moe", "qwen3",
                                         "deepseek", "granitemoe", "minimax-m2", "dots1"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return c == '-' || c == ' '; }, '_');
                           return name;
                         });

TEST(Gguf, AnExpertOfZerosIsSharedWhereNoneIs) {
  const ScratchDirectory scratch;
  Recipe recipe = recipe_for("glm4_moe");
  recipe.model.moe.num_shared_experts = 0;
  recipe.model.moe.router.bias.rate = 0;
  save(recipe, scratch.path() / "run");
  gguf::export_model({.checkpoint = scratch.path() / "run", .file = scratch.path() / "model.gguf"}, silent);
  const GgufReader file(scratch.path() / "model.gguf");
  EXPECT_EQ(file.keys["glm4moe.expert_shared_count"], 1);
  EXPECT_EQ(file.tensors.at("blk.1.ffn_down_shexp.weight").dims, (std::vector<std::int64_t>{16, 32}));
  EXPECT_FALSE(file.tensors.contains("blk.0.ffn_down_shexp.weight")) << "this block is dense";
  for (const char* name : {"blk.1.ffn_gate_shexp.weight", "blk.2.ffn_up_shexp.weight",
                           "blk.2.ffn_down_shexp.weight", "blk.1.exp_probs_b.bias"})
    for (const float value : file.numbers(name)) ASSERT_EQ(value, 0) << name;
}

TEST(Gguf, MatricesAreOfTheTypeAskedForAndTheRestStaysWhole) {
  const ScratchDirectory scratch;
  Recipe recipe = recipe_for("glm4_moe");
  recipe.model.moe.moe_intermediate_size = 40;  // rows of 40 have no whole blocks of 32
  const CheckpointReader checkpoint(save(recipe, scratch.path() / "run"));
  for (const NumberType type : {NumberType::bf16, NumberType::f16, NumberType::q8_0}) {
    const fs::path path = scratch.path() / (std::string(gguf::name_of(type)) + ".gguf");
    std::string said;
    gguf::export_model({.checkpoint = scratch.path() / "run", .file = path, .type = type},
                       [&](const std::string& line) { said += line + "\n"; });
    const GgufReader file(path);
    EXPECT_EQ(file.keys["general.file_type"], type == NumberType::bf16  ? 32
                                              : type == NumberType::f16 ? 1
                                                                        : 7);
    for (const auto& [name, tensor] : file.tensors) {
      const bool is_whole = tensor.dims.size() == 1 || name.ends_with("ffn_gate_inp.weight");
      const bool has_blocks = tensor.dims[0] % 32 == 0;
      const auto expected = is_whole                                  ? 0u
                            : type == NumberType::q8_0 && !has_blocks ? 1u
                                                                      : static_cast<std::uint32_t>(type);
      EXPECT_EQ(tensor.type, expected) << name;
    }
    const std::vector<float> exact =
                                 checkpoint.read_all<float>("model/model.layers.1.self_attn.v_proj.weight"),
                             rounded = file.numbers("blk.1.attn_v.weight");
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const float nearest = type == NumberType::bf16 ? to_float(to_bfloat16(exact[i]))
                                                     : test::float_of_half(gguf::to_half(exact[i]));
      ASSERT_NEAR(rounded[i], nearest, type == NumberType::q8_0 ? 0.01 : 0);
    }
    EXPECT_EQ(said.find("no multiple of 32") != std::string::npos, type == NumberType::q8_0) << said;
  }
}

TEST(Gguf, WhatLlamaCppComputesOtherwiseIsRefused) {
  struct Case {
    const char *llama_cpp, *ours;
    void (*change)(ModelRecipe&);
    std::vector<std::string> words;
  };
  const std::vector<Case> table = {
      {"qwen3moe",
       "qwen3moe",
       [](ModelRecipe& m) { m.moe.router.norm_topk_prob = false; },
       {"do not sum to 1"}},
      {"qwen3moe", "qwen3moe", [](ModelRecipe& m) { m.moe.first_k_dense_replace = 1; }, {"block is dense"}},
      {"qwen3moe", "qwen3moe", [](ModelRecipe& m) { m.moe.num_shared_experts = 1; }, {"shared experts"}},
      {"qwen3moe", "qwen3moe", [](ModelRecipe& m) { m.moe.router.routed_scaling_factor = 2; }, {"by 2"}},
      {"qwen3moe",
       "qwen3moe",
       [](ModelRecipe& m) { m.moe.router.n_group = 4, m.moe.router.topk_group = 2; },
       {"groups of experts by logits"}},
      {"qwen3moe",
       "qwen3moe",
       [](ModelRecipe& m) { m.partial_rotary_factor = 0.4; },
       {"4 of the 10 elements"}},
      {"olmoe",
       "olmoe",
       [](ModelRecipe& m) { m.moe.router.norm_topk_prob = true; },
       {"norm_topk_prob: true"}},
      {"olmoe", "olmoe", [](ModelRecipe& m) { m.tie_word_embeddings = true; }, {"tie_word_embeddings: true"}},
      {"olmoe", "olmoe", [](ModelRecipe& m) { m.num_key_value_heads = 2; }, {"4 heads of queries share 2"}},
      {"llama",
       "mixtral as llama",
       [](ModelRecipe& m) { m.moe.router.norm_topk_prob = false; },
       {"do not sum to 1"}},
      {"llama", "llama", [](ModelRecipe& m) { m.qk_norm = true; }, {"normalises queries and keys"}},
      {"glm4moe",
       "glm4moe",
       [](ModelRecipe& m) { m.qk_norm_over = QkNormOver::all_heads; },
       {"over all heads"}},
      {"glm4moe", "glm4moe", [](ModelRecipe& m) { m.moe.router.n_group = 8; }, {"one expert each"}},
      {"deepseek",
       "deepseek",
       [](ModelRecipe& m) { m.moe.router.norm_topk_prob = true; },
       {"norm_topk_prob: true"}},
      {"deepseek", "deepseek", [](ModelRecipe& m) { m.head_dim = 10; }, {"40 elements together"}},
      {"minimax-m2", "minimax-m2", [](ModelRecipe& m) { m.tie_word_embeddings = true; }, {"tie_word"}},
      {"dots1", "dots1", [](ModelRecipe& m) { m.moe.num_shared_experts = 0; }, {"no shared experts"}},
      {"granitemoe",
       "granitemoe",
       [](ModelRecipe& m) { m.moe.router.kind = RouterKind::sigmoid; },
       {"sigmoid"}},
      {"qwen3", "qwen3", [](ModelRecipe& m) { m.qk_norm = false; }, {"does not normalise"}},
      {"glm4moe",
       "glm4moe",
       [](ModelRecipe& m) { m.moe.router.score = CosineScoreRecipe{}; },
       {"score by cosine"}},
      {"qwen3", "qwen3", [](ModelRecipe& m) { m.attention_bias = AttentionBias::qkv; }, {"have biases"}},
      {"qwen3",
       "qwen3",
       [](ModelRecipe& m) { m.rope_scaling.type = RopeFrequencies::Scaling::llama3; },
       {"scaled as Llama 3.1"}},
      {"qwen3", "qwen3", [](ModelRecipe& m) { m.no_rope_layers = {0}; }, {"turn nothing in some blocks"}},
      {"qwen3", "qwen3", [](ModelRecipe& m) { m.qk_norm_after_rope = true; }, {"after they are turned"}},
      {"glm4moe",
       "glm4moe",
       [](ModelRecipe& m) {
         m.moe.first_k_dense_replace = 0;
         m.moe.dense_layers = {1};
       },
       {"dense blocks behind"}},
      {"qwen3",
       "qwen3",
       [](ModelRecipe& m) { m.num_hidden_layers = m.moe.first_k_dense_replace = 513; },
       {"513 blocks", "512"}},
  };
  for (const Case& one : table) {
    ModelRecipe model = recipe_of_llama_cpp(one.ours).model;
    EXPECT_STREQ(gguf::architecture_for(one.llama_cpp, model).name, one.llama_cpp);
    one.change(model);
    std::vector<std::string> words = one.words;
    words.push_back(join_text("llama.cpp's ", one.llama_cpp, " would compute another model"));
    expect_words(sentence_of(Fault::request, [&] { gguf::architecture_for(one.llama_cpp, model); }), words);
  }
  // An epsilon of any size is read from the file.
  ModelRecipe model = recipe_of_llama_cpp("olmoe").model;
  model.rms_norm_eps = 1e-3;
  EXPECT_STREQ(gguf::architecture_for("", model).name, "olmoe");
  model.moe.router.norm_topk_prob = true;
  expect_words(
      sentence_of(Fault::request, [&] { gguf::architecture_for("", model); }),
      {"No architecture of llama.cpp", "\n  olmoe: ", "\n  glm4moe: its routers use softmax scores"});
  expect_words(sentence_of(Fault::request, [&] { gguf::architecture_for("qwen3_moe", model); }),
               {"'qwen3_moe' came", "did you mean 'qwen3moe'?"});
}

TEST(Gguf, NothingIsLeftWhereItFails) {
  const ScratchDirectory scratch;
  const fs::path run = scratch.path() / "run", path = scratch.path() / "model.gguf";
  const auto export_it = [&] { gguf::export_model({.checkpoint = run, .file = path}, silent); };
  const fs::path checkpoint = save(recipe_for("mixtral"), run);
  std::ofstream(path) << "mine";
  expect_words(sentence_of(Fault::request, export_it), {"model.gguf is there already"});
  fs::remove(path);
  std::ofstream(partial_path(path)) << "of another export";
  expect_words(sentence_of(Fault::request, export_it), {"model.gguf.partial is there", "cut off"});
  fs::remove(partial_path(path));
  Recipe narrow = recipe_for("mixtral");
  narrow.model.vocab_size = 257;
  save(narrow, run);
  expect_words(sentence_of(Fault::request, export_it),
               {"vocab_size is 257", "at least 258", "--tokenizer none"});
  save(recipe_for("mixtral"), run);
  fs::resize_file(checkpoint / "rank-00000.h5", fs::file_size(checkpoint / "rank-00000.h5") / 2);
  sentence_of(Fault::data, export_it);
  Recipe huge = recipe_for("mixtral");
  huge.model.initializer_range = 1e6;
  save(huge, scratch.path() / "huge");
  expect_words(
      sentence_of(Fault::numeric,
                  [&] {
                    gguf::export_model(
                        {.checkpoint = scratch.path() / "huge", .file = path, .type = NumberType::f16},
                        silent);
                  }),
      {"token_embd.weight has the number", "too large for fp16"});
  EXPECT_FALSE(fs::exists(path));
  EXPECT_FALSE(fs::exists(partial_path(path)));
}

TEST(Gguf, TheCommandSaysWhatItExpected) {
  const ScratchDirectory scratch;
  const std::string run = scratch.path() / "run", path = scratch.path() / "model.gguf";
  save(recipe_for("mixtral"), run);
  const auto refused = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {run, path});
    return sentence_of(Fault::request, [&] { run_export(arguments); });
  };
  expect_words(refused({}), {"add --format gguf"});
  expect_words(refused({"--format", "ggml"}), {"ggml came", "hf or gguf"});
  expect_words(refused({"--format", "gguf", "--dtype", "q4_0"}), {"q4_0", "fp32, bf16, fp16 or q8_0"});
  expect_words(refused({"--format", "gguf", "--shard-size", "5GB"}), {"--shard-size", "one file"});
  expect_words(sentence_of(Fault::request,
                           [&] {
                             run_export({run, path + "-not", "--dtype", "q8_0"});
                           }),
               {"q8_0 came", "fp32 or bf16"});
  EXPECT_EQ(run_export({run, path, "--format", "gguf", "--dtype", "fp16"}), 0);
  EXPECT_EQ(GgufReader(path).keys["general.file_type"], 1);
}

}  // namespace
}  // namespace conclave
