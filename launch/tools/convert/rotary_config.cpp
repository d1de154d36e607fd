#include "launch/tools/convert/rotary_config.h"

#include "framework/store/json_text.h"

namespace conclave {
namespace {

constexpr const char* no_other_scaling = "Conclave scales rotary positions by linear and llama3 alone";
constexpr const char* sections[] = {"rope_parameters", "rope_scaling"};

std::string key_of(const ConfigReader& config, const std::string& name) {
  return config.one_of({"rope_parameters." + name, "rope_scaling." + name, name});
}

std::optional<double> real_of(const ConfigReader& config, const std::string& name) {
  const std::string key = key_of(config, name);
  return config.has(key) ? std::optional(config.real(key)) : std::nullopt;
}

/// The word for the kind of scaling, which two keys of the section tell.
std::string scaling_type(const ConfigReader& config, const std::string& section) {
  return config.text_or(config.one_of({section + ".rope_type", section + ".type"}), "default");
}

RopeScalingRecipe read_scaling(const ConfigReader& config, const std::string& section) {
  const std::string type = scaling_type(config, section);
  RopeScalingRecipe scaling;
  std::vector<std::string> keys = {"rope_type", "type", "rope_theta", "partial_rotary_factor"};
  if (type == "default") {
    config.expect_no_other(section, keys, no_other_scaling);
    return scaling;
  }
  // HunYuan's positions of this kind have another theta and are not scaled (hunyuan.cpp).
  if (type == "dynamic" && config.has(section + ".alpha") &&
      config.text_or("model_type", "").starts_with("hunyuan_v1_"))
    return scaling;
  if (type != "linear" && type != "llama3")
    config.refuse(section, ": positions that are scaled by ", text_of(type),
                  " came, expected default: ", no_other_scaling, ".");
  keys.emplace_back("factor");
  scaling.type = RopeFrequencies::Scaling::linear;
  scaling.factor = config.real(section + ".factor");
  if (type == "llama3") {
    scaling.type = RopeFrequencies::Scaling::llama3;
    scaling.low_freq_factor = config.real(section + ".low_freq_factor");
    scaling.high_freq_factor = config.real(section + ".high_freq_factor");
    scaling.original_max_position_embeddings = config.whole(section + ".original_max_position_embeddings");
    for (const char* key : {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"})
      keys.emplace_back(key);
  }
  config.expect_no_other(section, keys, no_other_scaling);
  return scaling;
}

}  // namespace

RotaryConfig read_rotary_config(const ConfigReader& config) {
  // transformers follows rope_scaling then, others follow rope_parameters.
  if (config.has("rope_parameters") && config.has("rope_scaling"))
    config.refuse(
        "rope_parameters and rope_scaling are both there, and both tell how positions turn; take the one out "
        "that is wrong.");
  RopeScalingRecipe scaling;
  for (const char* section : sections)
    if (config.has(section)) scaling = read_scaling(config, section);
  return {.theta = real_of(config, "rope_theta"),
          .partial_rotary_factor = real_of(config, "partial_rotary_factor"),
          .scaling = scaling};
}

RotaryConfig read_whole_rotary_config(const ConfigReader& config) {
  config.expect(key_of(config, "partial_rotary_factor"), 1.0, "this architecture turns whole heads");
  return read_rotary_config(config);
}

}  // namespace conclave
