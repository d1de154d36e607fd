// Reading recipes, strictly: an unknown key, a duplicate key, a wrong type or an impossible value is an error
// that names the file and line, the key, what came and what is valid. What keys mean together is
// validate_recipe's.
#pragma once

#include <string>
#include <vector>

#include "framework/recipe/recipe.h"

namespace conclave {

/// Reads a recipe file and applies overrides in order. An override is "key.path=value", its value read as
/// YAML; an element of a list is named by its index, as in "data.train.0.weight=2".
Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides = {});

/// The same for a text; the source stands where a file's name would in errors.
Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::vector<std::string>& overrides = {});

/// Changes one key: "model.moe.num_experts=8".
void apply_override(Recipe& recipe, const std::string& override_text);

/// A sentence where YAML reads the end of an override's value as a comment, as in name=exp #5; or "".
std::string comment_in_override(const std::string& override_text);

/// Whether a command-line argument has the form of an override rather than of a path.
bool is_override(const std::string& argument);

}  // namespace conclave
