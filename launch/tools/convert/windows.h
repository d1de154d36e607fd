// Sliding windows of attention in a config.json. Conclave's attention sees the whole document, which is the
// same while no sequence is longer than the window.
#pragma once

#include <cstdint>
#include <optional>

#include "launch/tools/convert/config_reader.h"

namespace conclave {

/// The tokens that the narrowest attention of the model sees, the own one included; nothing where all blocks
/// see everything. Throws Fault::data for other kinds of attention.
std::optional<std::int64_t> window_of(const ConfigReader& config);

}  // namespace conclave
