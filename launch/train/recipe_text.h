// Recipes as text: reading them strictly, writing them, and comparing two of them key by key.
#pragma once

#include <string>
#include <vector>

#include "framework/recipe/changes.h"
#include "framework/recipe/schema.h"
#include "launch/train/recipe.h"

namespace conclave {

/// The schema has every key of a recipe.
const Schema& recipe_schema();

/// Reads a recipe file and applies overrides in order. An override is "key.path=value", its value read as
/// YAML. An element of a list is named by its index, as in "data.train.0.weight=2". validate_recipe checks
/// what keys mean together.
Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides = {});

/// Does the same for a text; the source stands where a file's name would in errors.
Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::vector<std::string>& overrides = {});

/// Changes one key: "model.moe.num_experts=8".
void apply_override(Recipe& recipe, const std::string& override_text);

/// Writes the resolved recipe, every default written out, as a run keeps it in recipe.yaml. Parsing it gives
/// exactly the same recipe.
std::string to_yaml(const Recipe& recipe);

/// Writes the same text with a comment beside each key for `conclave validate`.
std::string to_annotated_yaml(const Recipe& recipe);

/// Returns the value of one key of the resolved recipe, such as "output" or "data.train.0.path": a text as it
/// is, anything else as YAML. Throws Fault::request with the nearest key where there is no such key.
std::string key_text(const Recipe& recipe, const std::string& path);

/// Lists the changes in the order in which recipes are written.
std::vector<KeyChange> changes_between(const Recipe& before, const Recipe& after);

/// True of a key that says what the numbers in a checkpoint's tensors mean. The same weights are another
/// model under another value.
bool gives_weights_their_meaning(const std::string& key);
/// True of a key that says what was counted in a run's position in its data. Under another value the text is
/// cut or ordered otherwise.
bool gives_counts_their_meaning(const std::string& key);

/// True where checkpoint.accept_changes names the key, or a section or list that it is in.
bool accepts_change(const Recipe& recipe, const std::string& key);

}  // namespace conclave
