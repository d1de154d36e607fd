// The code of classes that transformers does not have: modeling_conclave.py, which stands beside the weights
// of such an export. transformers runs it where the one who loads the model says trust_remote_code=True.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace conclave {

constexpr const char* modeling_file = "modeling_conclave.py";

/// Returns all of that file. CMake puts it into the program.
std::string modeling_code();

/// Returns the key auto_map of a config.json, which leads transformers to the classes of a model: "Deepseek".
nlohmann::ordered_json auto_map(const std::string& model);

}  // namespace conclave
