// Import: foreign directories that are wrong, overrides that would change what weights mean, and what it
// never writes over.
#include "framework/store/safetensors.h"
#include "launch/train/recipe_text.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

TEST(ImportedTokenizer, SaysWhyItIsNotRead) {
  const ScratchDirectory scratch;
  save(recipe_for("mixtral"), scratch.path() / "run");
  const fs::path directory = scratch.path() / "exported";
  export_model({.checkpoint = scratch.path() / "run", .directory = directory, .tokenizer = "none"}, silent);
  std::ofstream(directory / "tokenizer.json") << R"({"model": {"type": "Unigram"}})";
  std::string said;
  const Recipe recipe = import_model({.directory = directory, .run = scratch.path() / "back"},
                                     [&](const std::string& line) { said += line + "\n"; });
  EXPECT_EQ(recipe.data.tokenizer, scratch.path() / "back" / "tokenizer.json");
  expect_words(said, {"model.type is Unigram", "Conclave does not read this tokenizer"});
}

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
      {"attention_bias", true, {"missing: model.layers.0.self_attn.q_proj.bias"}},
      {"mlp_bias", true, {"mlp_bias", "no biases"}},
      {"rope_scaling",
       {{"rope_type", "yarn"}, {"factor", 4}},
       {"rope_scaling", "yarn", "linear and llama3 alone"}},
      {"mlp_only_layers", {1}, {"missing: model.layers.0.mlp.gate.weight", "unexpected"}},
      {"decoder_sparse_step", 2, {"missing: model.layers.2.mlp.gate_proj.weight"}},
      {"decoder_sparse_step", 0, {"decoder_sparse_step", "from 1"}},
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

TEST_F(Import, SaysThatItRoundsWeightsOf64Bits) {
  // The final norm of all ones, once more in a file of its own and twice as wide.
  const std::string norm = "model.norm.weight";
  const fs::path index = directory_ / "model.safetensors.index.json";
  Json map = json_of(index);
  const SafetensorsReader reader(directory_ / map["weight_map"][norm].get<std::string>());
  std::vector<SafeTensorPlan> plans;
  std::vector<std::vector<float>> values;
  for (const SafeTensor& tensor : reader.tensors()) {
    if (tensor.name == norm) continue;
    plans.push_back({.name = tensor.name, .shape = tensor.shape});
    values.emplace_back(static_cast<std::size_t>(element_count(tensor.shape)));
    reader.read(tensor, values.back().data());
  }
  SafetensorsWriter writer(reader.path(), plans);
  for (const std::vector<float>& tensor : values) writer.write(tensor.data(), tensor.size());
  writer.finish();
  const std::vector<double> ones(32, 1.0);
  std::string header = Json{{norm, {{"dtype", "F64"}, {"shape", {32}}, {"data_offsets", {0, 256}}}}}.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size();
  std::ofstream wide(directory_ / "wide.safetensors", std::ios::binary);
  wide.write(reinterpret_cast<const char*>(&length), 8);
  wide << header;
  wide.write(reinterpret_cast<const char*>(ones.data()), 256);
  wide.close();
  map["weight_map"][norm] = "wide.safetensors";
  put(index, map);
  for (const char* precision : {"fp32", "fp64"}) {
    std::string said;
    import_model({.directory = directory_,
                  .run = scratch_.path() / precision,
                  .overrides = {join_text("training.precision=", precision)}},
                 [&](const std::string& line) { said += line + "\n"; });
    EXPECT_EQ(said.find("64 bits are rounded to 32") != std::string::npos, precision == std::string("fp32"));
  }
}

TEST_F(Import, WritesOverNothingAndKeepsTheShape) {
  const fs::path run = scratch_.path() / "run";
  expect_words(
      sentence_of(Fault::request, [&] { import_model({.directory = directory_, .run = run}, silent); }),
      {"is there already"});
  const fs::path own = scratch_.path() / "own";
  fs::create_directories(own);
  std::ofstream(own / "recipe.yaml") << "name: mine\n";
  expect_words(
      sentence_of(Fault::request, [&] { import_model({.directory = directory_, .run = own}, silent); }),
      {"is there already"});
  for (const char* change : {"model.hidden_size=64", "model.rope_theta=5", "model.rms_norm_eps=0.1",
                             "model.moe.router.norm_topk_prob=false"})
    expect_words(refusal(Fault::request, {change}), {"what the weights mean"});
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

TEST_F(Import, TakesPoolsFromOverridesAndRecipes) {
  const std::string pools = "model.moe.router.pool={minimum: 2, maximum: 4, evaluation: 3}";
  const fs::path first = scratch_.path() / "first", second = scratch_.path() / "second";
  const auto pools_of = [](const Recipe& recipe) { return recipe.model.moe.router.pool.maximum; };
  EXPECT_EQ(pools_of(import_model({.directory = directory_, .run = first, .overrides = {pools}}, silent)), 4);
  EXPECT_EQ(pools_of(import_model({.directory = directory_, .run = second, .recipe = first / "recipe.yaml"},
                                  silent)),
            4);
  EXPECT_EQ(pools_of(load_recipe(second / "recipe.yaml")), 4);
  expect_words(refusal(Fault::request, {"model.moe.router.pool={minimum: 2, maximum: 400, evaluation: 3}"}),
               {"the recipe", "model.moe.router.pool.maximum", "400 came"});
  Recipe recipe = load_recipe(first / "recipe.yaml");
  recipe.model.moe.router.pool.maximum = 400;
  std::ofstream(scratch_.path() / "wrong.yaml") << to_yaml(recipe);
  expect_words(sentence_of(Fault::request,
                           [&] {
                             import_model({.directory = directory_,
                                           .run = scratch_.path() / "third",
                                           .recipe = scratch_.path() / "wrong.yaml"},
                                          silent);
                           }),
               {"model.moe.router.pool.maximum", "400 came"});
}

}  // namespace
}  // namespace conclave
