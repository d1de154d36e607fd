// The rules by which text becomes words before byte pairs are joined. llama.cpp has those of published
// tokenizers built in, each under a name, and reads none from a file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "launch/tools/convert/gguf/vocabulary.h"

namespace conclave::gguf {

/// Returns the name (tokenizer.ggml.pre) of the rule that a tokenizer.json has. `path` begins sentences.
/// Throws Fault::request where llama.cpp has no such rule. `say` is told where it follows the rule nearly.
std::string pre_tokenizer_named(const nlohmann::json& tokenizer, const std::string& path, const Say& say);

}  // namespace conclave::gguf
