// Every shape of model has an export, and this says which: router, shared experts, norms of queries and keys,
// dense blocks and groups of experts in all combinations. Each comes back bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "framework/store/safetensors.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/modeling_code.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

struct Shape {
  RouterKind kind;
  bool shared;
  const char* norm;
  bool dense, groups;

  Recipe recipe() const {
    Recipe recipe = recipe_for("qwen3_moe");
    ModelRecipe& m = recipe.model;
    m.num_hidden_layers = 2;
    m.head_dim = 8;
    m.qk_norm = std::string(norm) != "none";
    m.qk_norm_over = std::string(norm) == "all_heads" ? QkNormOver::all_heads : QkNormOver::head;
    m.moe.num_shared_experts = shared ? 1 : 0;
    m.moe.first_k_dense_replace = dense ? 1 : 0;
    m.moe.router.kind = kind;
    m.moe.router.n_group = groups ? 2 : 1;
    if (kind == RouterKind::sigmoid) m.moe.router.bias.rate = 0.001;
    return recipe;
  }
  std::string text() const {
    return join_text(kind, shared ? ", shared" : "", ", qk_norm ", norm, dense ? ", dense" : "",
                     groups ? ", groups" : "");
  }
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid})
    for (const bool shared : {false, true})
      for (const char* norm : {"none", "head", "all_heads"})
        for (const bool dense : {false, true})
          for (const bool groups : {false, true}) all.push_back({kind, shared, norm, dense, groups});
  return all;
}

/// What each shape that transformers has a class for exports as. All others export as conclave.
const std::map<std::string, std::string> exports_as = {
    {"softmax, qk_norm none", "mixtral"},
    {"softmax, qk_norm none, dense", "deepseek"},
    {"softmax, shared, qk_norm none", "granitemoeshared"},
    {"softmax, shared, qk_norm none, dense", "deepseek"},
    {"softmax, qk_norm head", "qwen3_moe"},
    {"softmax, qk_norm head, dense", "qwen3_moe"},
    {"softmax, qk_norm all_heads", "olmoe"},
    {"sigmoid, qk_norm none", "glm4_moe"},
    {"sigmoid, qk_norm none, groups", "glm4_moe"},
    {"sigmoid, qk_norm none, dense", "glm4_moe"},
    {"sigmoid, qk_norm none, dense, groups", "glm4_moe"},
    {"sigmoid, qk_norm head", "glm4_moe"},
    {"sigmoid, qk_norm head, groups", "glm4_moe"},
    {"sigmoid, qk_norm head, dense", "glm4_moe"},
    {"sigmoid, qk_norm head, dense, groups", "glm4_moe"},
    {"sigmoid, shared, qk_norm none", "glm4_moe"},
    {"sigmoid, shared, qk_norm none, groups", "glm4_moe"},
    {"sigmoid, shared, qk_norm none, dense", "glm4_moe"},
    {"sigmoid, shared, qk_norm none, dense, groups", "glm4_moe"},
    {"sigmoid, shared, qk_norm head", "glm4_moe"},
    {"sigmoid, shared, qk_norm head, groups", "glm4_moe"},
    {"sigmoid, shared, qk_norm head, dense", "glm4_moe"},
    {"sigmoid, shared, qk_norm head, dense, groups", "glm4_moe"},
    {"sigmoid, qk_norm all_heads", "minimax_m2"},
};

TEST(ExportShapes, EveryShapeHasAnExportAndComesBack) {
  int exported = 0, known = 0;
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(shape.text());
    const ScratchDirectory scratch;
    const Recipe recipe = shape.recipe();
    const fs::path checkpoint = save(recipe, scratch.path() / "run");
    export_model({.checkpoint = checkpoint, .directory = scratch.path() / "out"}, silent);
    const std::string type = json_of(scratch.path() / "out/config.json")["model_type"];
    const auto found = exports_as.find(shape.text());
    EXPECT_EQ(type, found == exports_as.end() ? "conclave" : found->second);
    known += found != exports_as.end();
    ++exported;
    const Recipe back =
        import_model({.directory = scratch.path() / "out", .run = scratch.path() / "back"}, silent);
    EXPECT_EQ(back.model.moe.num_shared_experts, recipe.model.moe.num_shared_experts);
    EXPECT_EQ(back.model.moe.first_k_dense_replace, recipe.model.moe.first_k_dense_replace);
    EXPECT_EQ(back.model.moe.router.kind, recipe.model.moe.router.kind);
    EXPECT_EQ(back.model.moe.router.n_group, recipe.model.moe.router.n_group);
    EXPECT_EQ(back.model.qk_norm, recipe.model.qk_norm);
    EXPECT_EQ(back.model.qk_norm_over, recipe.model.qk_norm_over);
    expect_same_tensors<float>(checkpoint, *find_checkpoint(scratch.path() / "back").path, "model");
  }
  EXPECT_EQ(exported, 48);
  EXPECT_EQ(known, static_cast<int>(exports_as.size()));
}

TEST(ExportShapes, ASharedExpertOfZerosIsAddedWhereOneIsNeededAndLeftOutAgain) {
  const ScratchDirectory scratch;
  Recipe recipe = recipe_for("glm4_moe");
  recipe.model.moe.num_shared_experts = 0;
  const fs::path checkpoint = save(recipe, scratch.path() / "run"), out = scratch.path() / "out";
  std::string said;
  const auto say = [&](const std::string& line) { said += line + "\n"; };
  export_model({.checkpoint = checkpoint, .directory = out}, say);
  EXPECT_NE(said.find("shared expert of zeros is added"), std::string::npos) << said;
  EXPECT_EQ(json_of(out / "config.json")["n_shared_experts"], 1);
  const SafetensorsReader weights(out / "model.safetensors");
  int zeros = 0;
  for (const SafeTensor& tensor : weights.tensors()) {
    if (tensor.name.find(".shared_experts.") == std::string::npos) continue;
    ++zeros;
    std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape)), 1);
    weights.read(tensor, values.data());
    EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float value) { return value == 0; }));
  }
  EXPECT_EQ(zeros, 6);  // three matrices of two blocks
  said.clear();
  EXPECT_EQ(
      import_model({.directory = out, .run = scratch.path() / "back"}, say).model.moe.num_shared_experts, 0);
  EXPECT_NE(said.find("read without it"), std::string::npos) << said;

  // One number that is not zero keeps it.
  recipe.model.moe.num_shared_experts = 1;
  Recipe other = recipe;
  {
    const Model model(other);
    CheckpointWriter writer(scratch.path() / "one/checkpoints", 3);
    for (const Parameter& parameter : model.parameters.all()) {
      std::vector<float> values = parameter.value.to_host<float>();
      if (parameter.name.find(".shared_experts.") != std::string::npos)
        std::fill(values.begin(), values.end(), 0.0f);
      if (parameter.name == "model.layers.2.mlp.shared_experts.down_proj.weight") values.back() = 1e-30f;
      writer.add("model/" + parameter.name, dims_of(parameter.shape), values.data());
    }
    writer.set("recipe", to_yaml(other));
    writer.commit();
  }
  export_model({.checkpoint = scratch.path() / "one", .directory = scratch.path() / "one-out"}, silent);
  EXPECT_EQ(
      import_model({.directory = scratch.path() / "one-out", .run = scratch.path() / "one-back"}, silent)
          .model.moe.num_shared_experts,
      1);
}

TEST(ExportShapes, PackedExpertsAreGateAboveUpOneExpertAfterAnother) {
  const ScratchDirectory scratch;
  const Recipe recipe = recipe_for("granitemoeshared");
  const CheckpointReader checkpoint(save(recipe, scratch.path() / "run"));
  export_model({.checkpoint = checkpoint.path(),
                .directory = scratch.path() / "out",
                .architecture = "granitemoeshared"},
               silent);
  const SafetensorsReader weights(scratch.path() / "out/model.safetensors");
  const auto values_of = [&](const std::string& name, Dims& shape) {
    for (const SafeTensor& tensor : weights.tensors()) {
      if (tensor.name != name) continue;
      shape = tensor.shape;
      std::vector<float> values(static_cast<std::size_t>(element_count(tensor.shape)));
      weights.read(tensor, values.data());
      return values;
    }
    return std::vector<float>{};
  };
  const auto joined_rows = [&](const std::string& part, std::size_t stacks) {
    const std::vector<float> gate = checkpoint.read_all<float>("model/" + part + "gate_proj.weight"),
                             up = checkpoint.read_all<float>("model/" + part + "up_proj.weight");
    const auto size = static_cast<std::ptrdiff_t>(gate.size() / stacks);
    std::vector<float> all;
    for (std::size_t i = 0; i < stacks; ++i)
      for (const auto& matrix : {gate, up}) {
        const auto begin = matrix.begin() + static_cast<std::ptrdiff_t>(i) * size;
        all.insert(all.end(), begin, begin + size);
      }
    return all;
  };
  Dims shape;
  EXPECT_EQ(values_of("model.layers.1.block_sparse_moe.input_linear.weight", shape),
            joined_rows("model.layers.1.mlp.experts.", 8));
  EXPECT_EQ(shape, (Dims{8, 32, 32}));
  EXPECT_EQ(values_of("model.layers.0.shared_mlp.input_linear.weight", shape),
            joined_rows("model.layers.0.mlp.shared_experts.", 1));
  EXPECT_EQ(shape, (Dims{64, 32}));
}

// By softmax the best k experts are in the best k groups, so that groups need no class that knows them.
TEST(ExportShapes, GroupsThatLimitNothingNeedNoClassThatKnowsThem) {
  ModelRecipe model = recipe_for("qwen3_moe").model;
  model.moe.router.n_group = 4;
  model.moe.router.topk_group = 2;
  EXPECT_EQ(&choose_architecture("", model), &qwen3_moe);  // with two experts of each token
  model.moe.num_experts_per_tok = 3;
  EXPECT_EQ(&choose_architecture("", model), &conclave_own);
  model.moe.router.topk_group = 4;
  EXPECT_EQ(&choose_architecture("", model), &qwen3_moe);
  // One expert has no second score, which GLM-4-MoE and its kin add up in each group.
  model = recipe_for("glm4_moe").model;
  model.moe.router.n_group = model.moe.num_experts;
  EXPECT_EQ(&choose_architecture("", model), &conclave_own);
  model = recipe_for("minimax_m2").model;
  model.moe.router.n_group = 4;
  model.moe.router.topk_group = 3;  // by sigmoid the two best of a group count
  EXPECT_EQ(&choose_architecture("", model), &conclave_own);
}

TEST(ExportShapes, TheRecipesOfKnownModelsExportAsTheirOwnClasses) {
  for (const auto& [recipe, architecture] :
       std::map<std::string, std::string>{{"deepseekmoe-16b", "deepseek"},
                                          {"mixtral-8x7b", "mixtral"},
                                          {"olmoe-7b-a1b", "olmoe"},
                                          {"qwen3-30b-a3b", "qwen3_moe"}}) {
    const ModelRecipe model =
        load_recipe(CONCLAVE_SOURCE_DIRECTORY "/examples/cluster/" + recipe + ".yaml", {}).model;
    EXPECT_EQ(choose_architecture("", model).model_type, architecture);
    EXPECT_EQ(export_sentence(model).find("The model exports as " + architecture), 0u);
  }
  EXPECT_EQ(export_sentence(recipe_for("dots1").model), "The model exports as glm4_moe.");
  EXPECT_EQ(
      export_sentence(recipe_for("olmoe").model, {&qwen3_moe, &mixtral}),
      "The model has no export: it normalises queries and keys; the weights of its chosen experts do not "
      "sum to 1.");
}

// The configuration of deepseek-ai/deepseek-moe-16b-base has these keys with these values.
TEST(ExportShapes, DeepSeekMoeIsWrittenWithThePublishedKeysAndBringsItsCode) {
  const ModelRecipe model =
      load_recipe(CONCLAVE_SOURCE_DIRECTORY "/examples/cluster/deepseekmoe-16b.yaml", {}).model;
  nlohmann::ordered_json config;
  write_common_config(model, config);
  deepseek.write_config(model, config);
  const Json published =
      Json::parse(R"({"attention_bias": false, "attention_dropout": 0.0, "aux_loss_alpha": 0.001,
      "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10944,
      "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64, "n_shared_experts": 2,
      "norm_topk_prob": false, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
      "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "scoring_func": "softmax",
      "tie_word_embeddings": false, "vocab_size": 102400})");
  for (const auto& [key, value] : published.items())
    if (value.is_number_float())
      EXPECT_DOUBLE_EQ(config[key].get<double>(), value.get<double>()) << key;
    else
      EXPECT_EQ(config[key], value) << key;

  const ScratchDirectory scratch;
  save(recipe_for("deepseek"), scratch.path() / "run");
  std::string said;
  export_model({.checkpoint = scratch.path() / "run", .directory = scratch.path() / "out"},
               [&](const std::string& line) { said += line + "\n"; });
  EXPECT_NE(said.find("trust_remote_code=True"), std::string::npos) << said;
  std::ifstream file(scratch.path() / "out" / modeling_file);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), modeling_code());
  const Json map = json_of(scratch.path() / "out/config.json")["auto_map"];
  for (const auto& [key, place] : map.items()) {
    const std::string name = place.get<std::string>(), module = "modeling_conclave.";
    ASSERT_EQ(name.find(module), 0u);
    EXPECT_NE(modeling_code().find("class " + name.substr(module.size()) + "("), std::string::npos) << name;
  }
  EXPECT_EQ(map.size(), 2u);
}

}  // namespace
}  // namespace conclave
