// Changes: what differs between two recipes, key by key, and which of it a run that goes on must not change
// without a word.
#pragma once

#include <string>
#include <vector>

#include "framework/recipe/recipe.h"

namespace conclave {

struct RecipeChange {
  std::string key;            // its path: "data.train.0.weight"
  std::string before, after;  // as YAML; empty: the key is not there, which only elements of lists may be
  bool operator==(const RecipeChange&) const = default;
};

/// In the order in which recipes are written.
std::vector<RecipeChange> changes_between(const Recipe& before, const Recipe& after);

/// "8 -> 16", "none -> 2"
std::string change_text(const RecipeChange& change);

/// True of a key that says what the numbers in a checkpoint's tensors mean. The same weights are another
/// model under another value.
bool gives_weights_their_meaning(const std::string& key);
/// True of a key that says what was counted in a run's position in its data. Under another value the text is
/// cut or ordered otherwise.
bool gives_counts_their_meaning(const std::string& key);
/// All keys of both kinds.
std::vector<std::string> keys_with_a_meaning();

/// True where checkpoint.accept_changes names the key, or a section or list that it is in.
bool accepts_change(const Recipe& recipe, const std::string& key);

}  // namespace conclave
