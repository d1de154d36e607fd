#include "launch/tools/convert/origin.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "framework/base/error.h"
#include "framework/store/json_text.h"

namespace conclave {
namespace {

const std::vector<const Origin*>& origins() {
  static const std::vector<const Origin*> all = {&granitemoe_origin,
                                                 &granitemoeshared_origin,
                                                 &mistral,
                                                 &ministral,
                                                 &seed_oss,
                                                 &smollm3,
                                                 &phi3,
                                                 &granite,
                                                 &ernie4_5,
                                                 &ernie4_5_moe,
                                                 &exaone_moe,
                                                 &hunyuan_v1_dense,
                                                 &hunyuan_v1_moe};
  return all;
}

/// What Conclave lacks of other classes.
std::string lacking(const std::string& model_type) {
  constexpr std::pair<const char*, const char*> parts[] = {
      {"qwen2_moe", "the gate on the output of its shared expert"},
      {"qwen3_next", "its linear attention (Gated DeltaNet)"},
      {"qwen3_5_moe_text", "its linear attention (Gated DeltaNet)"},
      {"qwen3_5_moe", "its linear attention (Gated DeltaNet)"},
      {"flex_olmo", "its norms behind attention and MLP, where Conclave's are before them"},
      {"olmo2", "its norms behind attention and MLP, where Conclave's are before them"},
      {"olmo3", "its norms behind attention and MLP, where Conclave's are before them"},
      {"glm4_moe_lite", "its multi-head latent attention"},
      {"deepseek_v2", "its multi-head latent attention"},
      {"deepseek_v3", "its multi-head latent attention"},
      {"longcat_flash", "its multi-head latent attention and its experts that compute nothing"},
      {"gpt_oss", "its attention sinks"},
      {"phimoe", "its LayerNorm with biases and its SparseMixer routers"},
      {"minimax", "its lightning attention"},
      {"llama4", "its chunked attention, and routers that scale what experts see"},
      {"llama4_text", "its chunked attention, and routers that scale what experts see"},
      {"lfm2_moe", "its short convolutions"},
      {"jetmoe", "its mixture of attention heads"},
      {"afmoe", "the gate on its attention, and its norms behind attention and MLP"},
      {"nemotron_h", "its Mamba layers"},
      {"gemma", "its GELU MLPs"},
      {"gemma2", "its GELU MLPs, and its norms behind attention and MLP"},
      {"gemma3", "its GELU MLPs, and its norms behind attention and MLP"},
      {"gemma3_text", "its GELU MLPs, and its norms behind attention and MLP"},
      {"glm4", "its norms behind attention and MLP"},
      {"apertus", "its xIELU MLPs without a gate"},
      {"arcee", "its squared ReLU MLPs without a gate"}};
  for (const auto& [type, part] : parts)
    if (model_type == type) return part;
  return "";
}

/// A config.json also names the class of transformers that it was written for.
void check_class(const ConfigReader& config, const Origin& origin) {
  if (!config.has("architectures")) return;
  const nlohmann::json& classes = config.json()["architectures"];
  for (const nlohmann::json& name : classes)
    if (name == origin.class_name) return;
  config.refuse(
      "architectures is ", text_of(classes.is_array() && classes.size() == 1 ? classes[0] : classes),
      ", but model_type ", config.text_or("model_type", ""), " with the head of a language model is ",
      origin.class_name, "; take the one out that is wrong.");
}

/// "P.experts.3.up_proj.weight", or Mixtral's "P.experts.3.w3.weight", taken apart.
struct ExpertName {
  std::string block;  // "P"
  std::int64_t expert = 0;
  bool is_down = false, is_up = false;
};
std::optional<ExpertName> expert_name(const std::string& name) {
  const std::string stack = ".experts.";
  const std::size_t at = name.find(stack);
  if (at == std::string::npos) return {};
  ExpertName parts{.block = name.substr(0, at)};
  const char* const end = name.data() + name.size();
  const auto [rest, code] = std::from_chars(name.data() + at + stack.size(), end, parts.expert);
  if (code != std::errc()) return {};
  const std::string matrix(rest, end);
  parts.is_down = matrix == ".down_proj.weight" || matrix == ".w2.weight";
  parts.is_up = matrix == ".up_proj.weight" || matrix == ".w3.weight";
  return parts;
}

/// transformers 5 may store all experts of a block together: gate_up_proj [experts, 2 * inner, hidden] with
/// gate above up, and down_proj [experts, hidden, inner]. It then says mlp where Mixtral says
/// block_sparse_moe.
std::optional<TensorView> packed_view(const HubTensor& tensor, const HubDirectory& directory) {
  std::string name = tensor.name;
  const std::string mixtrals = ".block_sparse_moe.";
  if (const std::size_t at = name.find(mixtrals); at != std::string::npos)
    name.replace(at, mixtrals.size(), ".mlp.");
  const std::optional<ExpertName> parts = expert_name(name);
  if (!parts) {
    if (name == tensor.name || !directory.contains(name)) return {};
    return renamed(name, tensor.shape);
  }
  const std::string packed = parts->block + (parts->is_down ? ".experts.down_proj" : ".experts.gate_up_proj");
  if (!directory.contains(packed) || directory.shape(packed).size() != 3) return {};
  const std::int64_t elements = element_count(tensor.shape), in_stack = parts->is_down ? 1 : 2;
  Dims whole = {directory.shape(packed)[0], in_stack * tensor.shape[0], tensor.shape[1]};
  whole[0] = std::max(whole[0], parts->expert + 1);  // one that is missing is said as another shape
  return TensorView{.stored = packed,
                    .stored_shape = whole,
                    .first = (parts->expert * in_stack + (parts->is_up ? 1 : 0)) * elements};
}

}  // namespace

Origin origin_of(const ConfigReader& config) {
  const std::string model_type = config.text_or("model_type", "");
  std::string names;
  const auto check_and_return = [&](const Origin& origin) {
    check_class(config, origin);
    return origin;
  };
  for (const Origin* one : origins())  // first, as some read an architecture in another form
    if (one->model_type == model_type) return check_and_return(*one);
  for (const Architecture* one : architectures()) {
    if (one->model_type == model_type)
      return check_and_return({.model_type = one->model_type,
                               .class_name = one->class_name,
                               .architecture = *one,
                               .read_config = one->read_config});
    names += join_text(names.empty() ? "" : ", ", one->model_type);
  }
  for (const Origin* one : origins())
    if (one->model_type != std::string(one->architecture.model_type))
      names += join_text(one == origins().back() ? " and " : ", ", one->model_type);
  const std::string lacks = lacking(model_type);
  if (!lacks.empty())
    config.refuse("its model_type is \"", model_type, "\", and Conclave lacks ", lacks, ".");
  config.refuse("its model_type is \"", model_type, "\"; Conclave imports ", names, ".");
}

void add_views(const Origin& origin, const std::vector<HubTensor>& wanted, const ModelRecipe& model,
               const ConfigReader& config, HubDirectory& directory) {
  for (const HubTensor& tensor : wanted) {
    std::optional<TensorView> view;
    if (origin.view != nullptr) view = origin.view({tensor.name, tensor.shape, model, config});
    const std::string stored = view ? view->stored : tensor.name;
    if (!directory.contains(stored)) {
      // The factor and the order of an origin go with the packed form too.
      if (std::optional<TensorView> packed = packed_view(tensor, directory)) {
        if (view) packed->factor = view->factor;
        view = packed;
      }
    }
    if (view) directory.add_view(tensor.name, tensor.shape, *view);
  }
}

void read_dense_keys(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = m.num_hidden_layers;
  m.moe.dense_layers.clear();
}

TensorView renamed(const std::string& name, const Dims& shape) {
  return {.stored = name, .stored_shape = shape};
}

std::optional<std::string> with_ending(const std::string& name, const std::string& ending,
                                       const std::string& other) {
  if (!name.ends_with(ending)) return {};
  return name.substr(0, name.size() - ending.size()) + other;
}

}  // namespace conclave
