// Import where one fact is told twice: in two keys, two sections, two files. Alike it is one fact; otherwise
// it is refused by a sentence that names both places, since readers differ in which of them they follow.
#include "framework/data/tokenizer.h"
#include "framework/store/safetensors.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

class Spellings : public testing::Test {
 protected:
  /// A directory of an architecture, its config.json changed.
  void make(const std::string& architecture, const Json& changes = Json::object()) {
    fs::remove_all(scratch_.path() / "run");
    fs::remove_all(directory_);
    save(recipe_for(architecture), scratch_.path() / "run");
    export_model({.checkpoint = scratch_.path() / "run", .directory = directory_}, silent);
    Json config = json_of(directory_ / "config.json");
    config.merge_patch(changes);
    put(directory_ / "config.json", config);
  }
  Recipe import() {
    const fs::path run = scratch_.path() / join_text("imported", ++imports_);
    said_.clear();
    return import_model({.directory = directory_, .run = run},
                        [&](const std::string& line) { said_ += line + "\n"; });
  }
  std::string refusal() {
    const std::string sentence = sentence_of(Fault::data, [&] { import(); });
    EXPECT_FALSE(fs::exists(scratch_.path() / join_text("imported", imports_)));
    return sentence;
  }
  ScratchDirectory scratch_;
  fs::path directory_ = scratch_.path() / "exported";
  std::string said_;
  int imports_ = 0;
};

TEST_F(Spellings, ThatDifferAreRefusedWithBothPlaces) {
  struct Case {
    const char* architecture;
    Json changes;  // a merge patch: null takes a key out
    std::vector<std::string> words;
  };
  const Json plain = {{"rope_type", "default"}, {"rope_theta", 10000.0}},
             scaled = {{"type", "yarn"}, {"factor", 4.0}};
  const std::vector<Case> table = {
      {"llama", {{"rope_parameters", plain}, {"rope_scaling", scaled}}, {"rope_parameters and rope_scaling"}},
      {"llama", {{"rope_parameters", plain}, {"rope_scaling", plain}}, {"rope_parameters and rope_scaling"}},
      {"llama", {{"rope_parameters", scaled}}, {"rope_parameters", "yarn", "linear and llama3"}},
      {"llama",
       {{"rope_parameters", {{"rope_type", "default"}, {"factor", 4.0}}}},
       {"rope_parameters.factor came", "linear and llama3"}},
      {"llama", {{"rope_parameters", {{"full_attention", plain}}}}, {"rope_parameters.full_attention"}},
      {"llama", {{"rope_parameters", 5}}, {"rope_parameters: 5 came"}},
      {"llama",
       {{"rope_parameters", plain}, {"rope_theta", 500000.0}},
       {"rope_parameters.rope_theta is 10000.0", "rope_theta is 500000.0", "the same thing"}},
      {"llama", {{"partial_rotary_factor", 0.5}}, {"partial_rotary_factor", "turns whole heads"}},
      {"glm4_moe",
       {{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 1.0}}}},
       {"rope_parameters.partial_rotary_factor is 1.0", "partial_rotary_factor is 0.5"}},
      {"mixtral",
       {{"rope_parameters", {{"rope_type", "default"}}}, {"rope_theta", nullptr}},
       {"rope_theta is missing"}},
      {"qwen3_moe", {{"num_local_experts", 4}}, {"num_experts is 8", "num_local_experts is 4"}},
      {"olmoe", {{"n_routed_experts", 4}}, {"num_experts is 8", "n_routed_experts is 4"}},
      {"mixtral", {{"num_experts", 4}}, {"num_experts is 4", "num_local_experts is 8"}},
      {"glm4_moe", {{"num_experts", 4}}, {"num_experts is 4", "n_routed_experts is 8"}},
      {"mixtral", {{"moe_intermediate_size", 4}}, {"intermediate_size is 16", "moe_intermediate_size is 4"}},
      {"llama", {{"dtype", "bfloat16"}}, {"dtype is \"bfloat16\"", "torch_dtype is \"float32\""}},
      {"llama", {{"architectures", {"Qwen3ForCausalLM"}}}, {"Qwen3ForCausalLM", "LlamaForCausalLM"}},
      {"llama", {{"layer_types", {"full_attention", "sliding_attention"}}}, {"layer_types", "sliding"}},
      {"llama", {{"quantization_config", {{"bits", 4}}}}, {"quantization_config"}},
      {"mixtral",
       {{"sliding_window", 8}, {"use_sliding_window", false}},
       {"sliding_window", "8 tokens back", "data.sequence_length=8"}},
      {"llama",
       {{"model_type", "mistral"},
        {"architectures", {"MistralForCausalLM"}},
        {"sliding_window", nullptr},
        {"max_position_embeddings", 5000}},
       {"sliding_window", "4096 tokens back"}},
  };
  for (const Case& one : table) {
    make(one.architecture, one.changes);
    std::vector<std::string> words = one.words;
    words.push_back((directory_ / "config.json").string());
    expect_words(refusal(), words);
  }
}

TEST_F(Spellings, ThatAgreeAreOneFact) {
  const double theta = 5000;
  make("qwen3_moe", {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", theta}}},
                     {"rope_theta", 5000},
                     {"rope_scaling", nullptr},
                     {"dtype", "float32"},
                     {"num_local_experts", 8},
                     {"partial_rotary_factor", 1},
                     {"layer_types", {"full_attention", "full_attention", "full_attention"}},
                     {"sliding_window", 4096}});
  const Recipe recipe = import();
  EXPECT_EQ(recipe.model.rope_theta, theta);
  EXPECT_EQ(recipe.model.moe.num_experts, 8);
  make("qwen3_moe",
       {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", theta}}}, {"rope_theta", nullptr}});
  EXPECT_EQ(import().model.rope_theta, theta);

  make("llama", {{"model_type", "mistral"}, {"architectures", {"MistralForCausalLM"}}});
  Json config = json_of(directory_ / "config.json");
  config["sliding_window"] = nullptr;  // which a merge patch would take out
  put(directory_ / "config.json", config);
  EXPECT_FALSE(import().model.qk_norm);
}

TEST_F(Spellings, OfOneKeyTwiceInAFile) {
  make("llama");
  std::string text = json_of(directory_ / "config.json").dump();
  text.insert(1, "\"rope_theta\": 7.0, ");
  std::ofstream(directory_ / "config.json") << text;
  expect_words(refusal(), {"config.json", "the key rope_theta is there twice"});
  std::ofstream(directory_ / "config.json")
      << "{\"a\": " << std::string(100, '[') << std::string(100, ']') << "}";
  expect_words(refusal(), {"config.json", "nested more than 64"});
}

TEST_F(Spellings, OfWhereTheWeightsAre) {
  make("llama");
  put(directory_ / "model.safetensors.index.json", {{"weight_map", Json::object()}});
  expect_words(refusal(), {"model.safetensors and model.safetensors.index.json are both there"});
  make("llama");
  put(directory_ / "adapter_config.json", Json::object());
  expect_words(refusal(), {"adapter_config.json", "adds no adapter"});
}

TEST_F(Spellings, OfAHeadThatIsTheEmbedding) {
  for (const bool is_same : {true, false}) {
    make("olmoe");  // which is tied
    const SafetensorsReader reader(directory_ / "model.safetensors");
    Json map;
    const SafeTensor* embedding = nullptr;
    for (const SafeTensor& tensor : reader.tensors()) {
      map[tensor.name] = "one.safetensors";
      if (tensor.name == "model.embed_tokens.weight") embedding = &tensor;
    }
    ASSERT_NE(embedding, nullptr);
    map["lm_head.weight"] = "two.safetensors";
    std::vector<float> values(static_cast<std::size_t>(element_count(embedding->shape)));
    reader.read(*embedding, values.data());
    if (!is_same) values.back() += 1;
    SafetensorsWriter writer(directory_ / "two.safetensors",
                             {{.name = "lm_head.weight", .shape = embedding->shape}});
    writer.write(values.data(), values.size());
    writer.finish();
    fs::rename(directory_ / "model.safetensors", directory_ / "one.safetensors");
    put(directory_ / "model.safetensors.index.json", {{"weight_map", map}});
    if (is_same)
      EXPECT_TRUE(import().model.tie_word_embeddings);
    else
      expect_words(refusal(), {"tie_word_embeddings is true", "lm_head.weight has other numbers"});
  }
}

TEST_F(Spellings, OfATokenizer) {
  make("llama");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) fs::remove(directory_ / name);
  int line = 0;
  train_sentencepiece(
      [&](std::string& text) {
        text = join_text("the cat sat on the mat ", line, " and the dog ran to the cat");
        return ++line <= 200;
      },
      scratch_.path() / "pieces", {.vocab_size = 300, .kind = "bpe"});
  fs::copy_file(scratch_.path() / "pieces.model", directory_ / "tokenizer.model");
  const auto vocabulary = [&] {  // as an export writes it
    Recipe recipe = recipe_for("llama");
    recipe.model.vocab_size = 300;
    recipe.data.tokenizer = scratch_.path() / "pieces.model";
    save(recipe, scratch_.path() / "pieces-run");
    export_model({.checkpoint = scratch_.path() / "pieces-run", .directory = scratch_.path() / "pieces-out"},
                 silent);
    return json_of(scratch_.path() / "pieces-out" / "tokenizer.json");
  }();

  Json same = vocabulary;
  same["added_tokens"].push_back({{"id", 300}, {"content", "<|im_start|>"}, {"special", true}});
  put(directory_ / "tokenizer.json", same);
  EXPECT_TRUE(import().data.tokenizer.ends_with("tokenizer.model"));

  Json longer = vocabulary;
  longer["added_tokens"].push_back({{"id", 300}, {"content", "word"}, {"special", false}});
  put(directory_ / "tokenizer.json", longer);
  expect_words(refusal(), {"tokenizer.json: token 300, 'word', stands for text", "not in tokenizer.model"});

  Json other = vocabulary;
  other["model"]["vocab"].erase("the");
  const std::int64_t id = vocabulary["model"]["vocab"].contains("the")
                              ? vocabulary["model"]["vocab"]["the"].get<std::int64_t>()
                              : 299;
  for (const auto& [text, place] : vocabulary["model"]["vocab"].items())
    if (place == id) other["model"]["vocab"].erase(text);
  other["model"]["vocab"]["another"] = id;
  put(directory_ / "tokenizer.json", other);
  expect_words(refusal(), {"tokenizer.json", join_text("token ", id, " is 'another'"), "in tokenizer.model"});

  // The vocabulary is named in parts once more, here and there.
  put(directory_ / "tokenizer.json", vocabulary);
  for (const bool has_pieces : {true, false}) {
    if (!has_pieces) fs::remove(directory_ / "tokenizer.model");
    const std::string read = has_pieces ? "tokenizer.model" : "tokenizer.json";
    put(directory_ / "added_tokens.json", {{"</s>", 2}, {"<|more|>", 300}});
    EXPECT_TRUE(import().data.tokenizer.ends_with(read));
    expect_words(said_, {"added_tokens.json has 1 special token that " + read + " does not have"});
    put(directory_ / "added_tokens.json", {{"<|end|>", 2}});
    expect_words(refusal(), {"added_tokens.json: token 2 is '<|end|>', but in " + read + " '</s>'"});
    fs::remove(directory_ / "added_tokens.json");
    const auto decoder = [](const Json& token) { return Json{{"added_tokens_decoder", {{"300", token}}}}; };
    put(directory_ / "tokenizer_config.json", decoder({{"content", "<|more|>"}, {"special", true}}));
    import();
    put(directory_ / "tokenizer_config.json", decoder({{"content", "more"}, {"special", false}}));
    expect_words(refusal(), {"tokenizer_config.json: token 300, 'more', stands for text"});
    put(directory_ / "tokenizer_config.json", {{"added_tokens_decoder", {{"first", {{"content", "a"}}}}}});
    expect_words(refusal(), {"added_tokens_decoder has the key first"});
    put(directory_ / "tokenizer_config.json", Json::object());
  }

  std::ofstream(directory_ / "tokenizer.model") << "aGVsbG8= 0\n";  // of another kind
  EXPECT_TRUE(import().data.tokenizer.ends_with("tokenizer.json"));

  put(directory_ / "tokenizer_config.json", {{"eos_token", "</s>"}});
  put(directory_ / "special_tokens_map.json", {{"eos_token", {{"content", "<|im_end|>"}}}});
  expect_words(refusal(), {"tokenizer_config.json: eos_token is </s>", "special_tokens_map.json <|im_end|>"});
}

}  // namespace
}  // namespace conclave
