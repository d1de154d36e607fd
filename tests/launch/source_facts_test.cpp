// Facts of an imported model come out again: config.json, generation_config.json, the tokenizer's files.
// Where training has made them untrue, an export says what is true.
#include "launch/tools/convert/source_facts.h"
#include "launch/tools/convert/architecture.h"
#include "launch/train/recipe_text.h"
#include "parallel/communicator.h"
#include "tests/launch/convert_models.h"
#include "tests/launch/synthetic_trainer.h"

namespace conclave {
namespace {

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A model of another house: its own ids, length, sampling, tokenizer and chat template.
class Source : public testing::Test {
 protected:
  void SetUp() override {
    save(recipe_for("qwen3_moe"), scratch_.path() / "run");
    export_model({.checkpoint = scratch_.path() / "run", .directory = directory_}, silent);
    config_ = json_of(directory_ / "config.json");
    config_.erase("torch_dtype");
    config_.erase("num_experts");
    config_.update({{"num_local_experts", 8},
                    {"dtype", "float32"},
                    {"max_position_embeddings", 40960},
                    {"bos_token_id", 255},
                    {"eos_token_id", {257, 254}},
                    {"pad_token_id", 3},
                    {"use_cache", false},
                    {"attention_dropout", 0.25},
                    {"max_window_layers", 3},
                    {"sliding_window", 4096},
                    {"output_router_logits", true},
                    {"router_aux_loss_coef", 0.001},
                    {"transformers_version", "5.0.0"}});
    put(directory_ / "config.json", config_);
    generation_ = {{"temperature", 0.6},
                   {"top_p", 0.95},
                   {"eos_token_id", {257, 254, 253}},
                   {"do_sample", true},
                   {"pad_token_id", 3}};
    put(directory_ / "generation_config.json", generation_);
    Json tokenizer = json_of(directory_ / "tokenizer.json");  // of bytes, and the pair "th"
    tokenizer["model"]["vocab"]["th"] = 256;
    tokenizer["model"]["merges"] = {"t h"};
    tokenizer["added_tokens"] = {{{"id", 257}, {"content", "<|im_end|>"}, {"special", true}},
                                 {{"id", 258}, {"content", "<|im_start|>"}, {"special", true}}};
    tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                   {"single", {{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}}}},
                                   {"pair", Json::array()},
                                   {"special_tokens", Json::object()}};
    put(directory_ / "tokenizer.json", tokenizer);
    put(directory_ / "tokenizer_config.json", {{"eos_token", "<|im_end|>"},
                                               {"pad_token", "<|im_end|>"},
                                               {"model_max_length", 131072},
                                               {"chat_template", "{{ messages }}"}});
    put(directory_ / "special_tokens_map.json", {{"eos_token", "<|im_end|>"}});
    std::ofstream(directory_ / "chat_template.jinja") << "{{ messages }}";
    fs::create_directory(directory_ / "additional_chat_templates");
    std::ofstream(directory_ / "additional_chat_templates" / "tools.jinja") << "{{ tools }}";
  }
  /// Whatever the source says, the export says, but for how many bytes a number has.
  void expect_handed_on(const fs::path& exported, const std::set<std::string>& changed = {}) {
    const Json config = json_of(exported / "config.json");
    for (const auto& [key, value] : config_.items()) {
      if (key == "num_local_experts" || key == "dtype" || key == "transformers_version") continue;
      if (changed.contains(key)) continue;
      EXPECT_TRUE(config.contains(key) && config[key] == value)
          << key << ": " << value << " became " << config.value(key, Json("nothing"));
    }
    EXPECT_EQ(config["num_experts"], 8);
    EXPECT_FALSE(config.contains("num_local_experts") || config.contains("dtype")) << "told twice";
    EXPECT_EQ(json_of(exported / "generation_config.json"), generation_);
    for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                             "chat_template.jinja", "additional_chat_templates/tools.jinja"})
      EXPECT_EQ(bytes_of(exported / file), bytes_of(directory_ / file)) << file;
  }
  std::string export_to(const fs::path& run, const std::string& name, const std::string& tokenizer = "") {
    std::string said;
    export_model({.checkpoint = run, .directory = scratch_.path() / name, .tokenizer = tokenizer},
                 [&](const std::string& line) { said += line + "\n"; });
    return said;
  }
  ScratchDirectory scratch_;
  fs::path directory_ = scratch_.path() / "source";
  Json config_, generation_;
};

TEST_F(Source, ComesOutAsItCameIn) {
  std::string said;
  const Recipe recipe = import_model({.directory = directory_, .run = scratch_.path() / "one"},
                                     [&](const std::string& line) { said += line + "\n"; });
  expect_words(said, {"attention_dropout is 0.25", "Conclave trains without it",
                      "router_aux_loss_coef: 0.001 becomes a term of model.moe.balance"});
  ASSERT_EQ(recipe.model.moe.balance.size(), 1u);
  EXPECT_NEAR(recipe.model.moe.balance[0].coefficient, 0.001 * 2 / 2, 1e-15);  // two per token, two layers
  EXPECT_NEAR(router_aux_loss_coefficient(recipe.model), 0.001, 1e-15);
  expect_words(export_to(scratch_.path() / "one", "out"), {"those of the imported model"});
  expect_handed_on(scratch_.path() / "out");

  // A recipe with shorter sequences does not shorten what the model can read.
  Recipe shorter = recipe_for("qwen3_moe");
  std::ofstream(scratch_.path() / "recipe.yaml") << to_yaml(shorter);
  const Recipe two = import_model(
      {.directory = directory_, .run = scratch_.path() / "two", .recipe = scratch_.path() / "recipe.yaml"},
      silent);
  EXPECT_EQ(two.data.sequence_length, 12);
  EXPECT_EQ(two.model.moe.balance, shorter.model.moe.balance) << "the recipe says it";
  export_to(scratch_.path() / "two", "out-two");
  expect_handed_on(scratch_.path() / "out-two", {"router_aux_loss_coef"});

  // Nor do longer ones go beyond what an export says.
  import_model({.directory = directory_,
                .run = scratch_.path() / "three",
                .overrides = {"data.sequence_length=50000"}},
               silent);
  export_to(scratch_.path() / "three", "out-three");
  EXPECT_EQ(json_of(scratch_.path() / "out-three" / "config.json")["max_position_embeddings"], 50000);
}

TEST_F(Source, IsKnownToEveryCheckpointOfTheRun) {
  Recipe recipe = recipe_for("qwen3_moe");
  std::ofstream(scratch_.path() / "recipe.yaml") << to_yaml(recipe);
  recipe = import_model(
      {.directory = directory_, .run = scratch_.path() / "one", .recipe = scratch_.path() / "recipe.yaml"},
      silent);
  const CheckpointReader first(*find_checkpoint(scratch_.path() / "one").path);
  const std::string facts = first.text(source_attribute);
  const auto source_of = [](const Attributes& attributes) {
    const auto found = attributes.find(source_attribute);
    return found == attributes.end() ? "nothing" : std::get<std::string>(found->second);
  };
  Mesh mesh(self_communicator(), {});
  const auto loaded = test::make_trainer(recipe, mesh), begun = test::make_trainer(recipe, mesh),
             other = test::make_trainer(recipe, mesh);
  loaded->load(first);
  loaded->step();
  EXPECT_EQ(source_of(loaded->attributes()), facts);
  begun->take(first, {"parameters"});  // another run
  EXPECT_EQ(source_of(begun->attributes()), facts);
  other->take(first, {"data_position"});
  EXPECT_EQ(source_of(other->attributes()), "nothing");
}

TEST_F(Source, IsHandedOnWithATokenizerThatConclaveDoesNotRead) {
  put(directory_ / "tokenizer.json", {{"model", {{"type", "WordPiece"}, {"vocab", Json::object()}}}});
  std::string said;
  const Recipe recipe = import_model({.directory = directory_, .run = scratch_.path() / "one"},
                                     [&](const std::string& line) { said += line + "\n"; });
  expect_words(said, {"model.type is WordPiece", "the recipe names it, export hands it on"});
  EXPECT_EQ(recipe.data.tokenizer, scratch_.path() / "one" / "tokenizer.json");
  EXPECT_EQ(load_recipe(scratch_.path() / "one" / "recipe.yaml").data.tokenizer, recipe.data.tokenizer);
  export_to(scratch_.path() / "one", "out");
  expect_handed_on(scratch_.path() / "out");
}

TEST_F(Source, WithoutATokenizerGetsNoOtherByDefault) {
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
    fs::remove(directory_ / file);
  const Recipe recipe = import_model(
      {.directory = directory_, .run = scratch_.path() / "one", .overrides = {"data.sequence_length=64"}},
      silent);
  EXPECT_EQ(recipe.data.tokenizer, "bytes");
  expect_words(export_to(scratch_.path() / "one", "out"),
               {"came without a tokenizer", "ends a text with another token", "--tokenizer NAME"});
  EXPECT_FALSE(fs::exists(scratch_.path() / "out" / "tokenizer.json"));
  EXPECT_EQ(json_of(scratch_.path() / "out" / "config.json")["eos_token_id"], Json({257, 254}));
  // The one that is asked for makes the ids its own, and nothing else.
  expect_words(export_to(scratch_.path() / "one", "asked", "bytes"), {"are those of bytes"});
  const Json config = json_of(scratch_.path() / "asked" / "config.json");
  EXPECT_EQ(config["eos_token_id"], 256);
  EXPECT_EQ(config["bos_token_id"], 256);
  EXPECT_EQ(config["pad_token_id"], 257);
  EXPECT_EQ(config["max_position_embeddings"], 40960);
  EXPECT_EQ(json_of(scratch_.path() / "asked" / "tokenizer_config.json")["model_max_length"], 40960);
  const Json generation = json_of(scratch_.path() / "asked" / "generation_config.json");
  EXPECT_EQ(generation["eos_token_id"], 256);
  EXPECT_EQ(generation["temperature"], 0.6);
}

TEST_F(Source, GivesWayToTheTokenizerThatTheRunWasTrainedWith) {
  import_model(
      {.directory = directory_, .run = scratch_.path() / "one", .overrides = {"data.tokenizer=bytes"}},
      silent);
  expect_words(export_to(scratch_.path() / "one", "out"), {"not the tokenizer of the imported model"});
  EXPECT_EQ(json_of(scratch_.path() / "out" / "config.json")["eos_token_id"], 256);
  EXPECT_FALSE(fs::exists(scratch_.path() / "out" / "chat_template.jinja"));
  // Without files the ids of the rows are still those of the source.
  export_to(scratch_.path() / "one", "none", "none");
  EXPECT_EQ(json_of(scratch_.path() / "none" / "config.json")["eos_token_id"], Json({257, 254}));
}

TEST(SourceOfADenseModel, StaysWithItsUpcycledOne) {
  const ScratchDirectory scratch;
  save(recipe_for("qwen3"), scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "run", .directory = directory, .tokenizer = "none"}, silent);
  Json config = json_of(directory / "config.json");
  config.update({{"max_position_embeddings", 40960},
                 {"bos_token_id", 1},
                 {"eos_token_id", 2},
                 {"max_window_layers", 2}});
  put(directory / "config.json", config);
  import_model({.directory = directory,
                .run = scratch.path() / "upcycled",
                .upcycle = UpcycleOptions{.kind = Kind::copy, .experts = 4, .top_k = 2}},
               silent);
  export_model({.checkpoint = scratch.path() / "upcycled", .directory = scratch.path() / "out"}, silent);
  const Json out = json_of(scratch.path() / "out" / "config.json");
  EXPECT_EQ(out["model_type"], "qwen3_moe");
  EXPECT_EQ(out["max_position_embeddings"], 40960);
  EXPECT_EQ(out["bos_token_id"], 1);
  EXPECT_EQ(out["eos_token_id"], 2);
  EXPECT_FALSE(out.contains("max_window_layers")) << "a key of another architecture";
}

}  // namespace
}  // namespace conclave
