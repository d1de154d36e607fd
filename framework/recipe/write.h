// Writing recipes: what a run keeps as recipe.yaml, and the same with every key explained for `conclave
// validate`.
#pragma once

#include <string>

#include "framework/recipe/recipe.h"

namespace conclave {

/// The resolved recipe, every default written out. Parsing it gives exactly the same recipe.
std::string to_yaml(const Recipe& recipe);

/// The same text with a comment beside each key: its meaning and its default. Keys of empty lists stand in
/// comments.
std::string to_annotated_yaml(const Recipe& recipe);

/// The value of one key of the resolved recipe, such as "output" or "data.train.0.path": a text as it is,
/// anything else as YAML. Fault::request with the nearest key where there is no such key.
std::string key_text(const Recipe& recipe, const std::string& path);

}  // namespace conclave
