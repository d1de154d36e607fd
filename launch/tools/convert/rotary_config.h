// RotaryConfig: rotary positions in a config.json. transformers 4 keeps them at the top and in rope_scaling,
// transformers 5 in the section rope_parameters. One file may say each thing in one way only, or twice alike.
#pragma once

#include <optional>

#include "launch/tools/convert/config_reader.h"
#include "layers/recipe.h"

namespace conclave {

struct RotaryConfig {
  std::optional<double> theta;
  std::optional<double> partial_rotary_factor;
  RopeScalingRecipe scaling;
};

/// Throws Fault::data where both sections are there, where two keys tell different things, or where positions
/// are scaled in another way than Conclave can.
RotaryConfig read_rotary_config(const ConfigReader& config);

/// Does the same where an architecture turns whole heads only: another partial_rotary_factor than 1 is
/// refused.
RotaryConfig read_whole_rotary_config(const ConfigReader& config);

}  // namespace conclave
