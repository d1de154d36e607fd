#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

constexpr const char* no_scaling = "Conclave has no scaled rotary positions";

std::string key_of(const ConfigReader& config, const std::string& name) {
  return config.one_of({"rope_parameters." + name, "rope_scaling." + name, name});
}

std::optional<double> real_of(const ConfigReader& config, const std::string& name) {
  const std::string key = key_of(config, name);
  return config.has(key) ? std::optional(config.real(key)) : std::nullopt;
}

}  // namespace

RotaryConfig read_rotary_config(const ConfigReader& config) {
  // transformers follows rope_scaling then, others follow rope_parameters.
  if (config.has("rope_parameters") && config.has("rope_scaling"))
    config.refuse(
        "rope_parameters and rope_scaling are both there, and both tell how positions turn; take the one out "
        "that is wrong.");
  for (const std::string section : {"rope_parameters", "rope_scaling"}) {
    for (const char* key : {".rope_type", ".type"}) config.expect(section + key, "default", no_scaling);
    config.expect_no_other(section, {"rope_type", "type", "rope_theta", "partial_rotary_factor"}, no_scaling);
  }
  return {.theta = real_of(config, "rope_theta"),
          .partial_rotary_factor = real_of(config, "partial_rotary_factor")};
}

RotaryConfig read_whole_rotary_config(const ConfigReader& config) {
  config.expect(key_of(config, "partial_rotary_factor"), 1.0, "this architecture turns whole heads");
  return read_rotary_config(config);
}

}  // namespace conclave
