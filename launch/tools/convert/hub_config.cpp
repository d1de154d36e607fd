#include "launch/tools/convert/hub_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "framework/store/durable_file.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/modeling_code.h"
#include "launch/tools/convert/windows.h"

namespace conclave {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr const char* id_keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};

/// Keys of a source that an export answers for itself under this or another name.
const std::set<std::string> answered = {"architectures",
                                        "model_type",
                                        "torch_dtype",
                                        "dtype",
                                        "rope_theta",
                                        "rope_scaling",
                                        "rope_parameters",
                                        "partial_rotary_factor",
                                        "num_experts",
                                        "num_mtp_layers",
                                        "num_local_experts",
                                        "n_routed_experts",
                                        "_name_or_path",
                                        "auto_map",
                                        "quantization_config",
                                        "transformers_version",
                                        "moe_intermediate_size",
                                        "num_nextn_predict_layers",
                                        "bos_token_id",
                                        "eos_token_id",
                                        "pad_token_id"};

/// Keys that an export writes and no recipe knows: a source's value goes before.
const std::set<std::string> not_of_the_recipe = {"attention_dropout", "output_router_logits",
                                                 "router_jitter_noise", "sliding_window", "use_cache"};

void write_ids(const HubConfig& self, OrderedJson& json) {
  if (!self.roles) {
    const nlohmann::json& source = self.source->config;
    for (const char* key : id_keys)
      if (source.contains(key)) json[key] = source.at(key);
    return;
  }
  const auto& [separator, padding] = *self.roles;
  json["bos_token_id"] = json["eos_token_id"] = separator ? OrderedJson(separator->id) : OrderedJson();
  if (padding) json["pad_token_id"] = padding->id;
}

/// A missing key would be a fact of the model to transformers, which takes token 1 of this architecture for
/// padding.
void write_no_padding(const HubConfig& self, OrderedJson& config) {
  if (&self.architecture == &olmoe && self.roles && !self.roles->padding) config["pad_token_id"] = nullptr;
}

/// What says which blocks have a window.
const std::set<std::string> of_windows = {"layer_types", "max_window_layers"};

void hand_on(const nlohmann::json& source, bool has_window, OrderedJson& config) {
  for (const auto& [key, value] : source.items())
    if (!answered.contains(key) && !(has_window && of_windows.contains(key)) &&
        (!config.contains(key) || not_of_the_recipe.contains(key)))
      config[key] = value;
  // There and back through our coefficient, a number may lose its last digit.
  const char* coefficient = "router_aux_loss_coef";
  if (!config.contains(coefficient) || !source.contains(coefficient) || !source[coefficient].is_number())
    return;
  const double there = source[coefficient].get<double>(), here = config[coefficient].get<double>();
  if (std::abs(there - here) <= 1e-12 * std::abs(there)) config[coefficient] = there;
}

}  // namespace

OrderedJson HubConfig::config() const {
  OrderedJson config;
  config["architectures"] = {architecture.class_name};
  config["model_type"] = architecture.model_type;
  write_common_config(recipe.model, config);
  config["max_position_embeddings"] = longest_sequence(recipe, source);
  architecture.write_config(recipe.model, config);
  config["torch_dtype"] = bfloat16 ? "bfloat16" : "float32";
  // The version whose keys these are. Without one, 4.57 warns of a fault in tokenizers of other models.
  config["transformers_version"] = "4.51.0";
  std::optional<std::int64_t> window;
  if (source) window = window_of(ConfigReader(source->config, "config.json of the imported model"));
  if (source && source->config.value("model_type", "") == architecture.model_type)
    hand_on(source->config, window.has_value(), config);
  // Beyond a window that is not handed on, the model would compute something else than its source.
  const bool keeps_window = config.contains("sliding_window") && config["sliding_window"].is_number() &&
                            config.value("use_sliding_window", true);
  if (window && !keeps_window)
    config["max_position_embeddings"] = std::max(*window, recipe.data.sequence_length);
  write_ids(*this, config);
  write_no_padding(*this, config);
  return config;
}

OrderedJson HubConfig::generation() const {
  OrderedJson generation;
  if (source && source->generation.is_object()) {
    generation = source->generation;
    if (!roles) return generation;  // it may end at more tokens than config.json says
    for (const char* key : id_keys) generation.erase(key);
  } else {
    generation["do_sample"] = false;
  }
  write_ids(*this, generation);
  return generation;
}

std::int64_t longest_sequence(const Recipe& recipe, const std::optional<SourceFacts>& source) {
  return std::max(recipe.data.sequence_length, source ? source->longest_sequence() : 0);
}

void write_hub_config(const std::filesystem::path& directory, const HubConfig& config) {
  write_json(directory / "config.json", config.config());
  write_json(directory / "generation_config.json", config.generation());
  if (config.architecture.brings_code) write_text_durably(directory / modeling_file, modeling_code());
}

}  // namespace conclave
