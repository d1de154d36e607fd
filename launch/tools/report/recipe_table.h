// Recipes as flat tables of keys, for comparing runs. It reads any YAML, so that the recipe of another
// version of Conclave can be compared too.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace conclave {

/// Returns the scalars of a YAML text by their path ("data.train.0.path"), in the order of the text. A list
/// of scalars is one value, "[0.9, 0.95]". Throws Fault::request where it is no YAML.
std::vector<std::pair<std::string, std::string>> flat_keys(const std::string& yaml,
                                                           const std::string& source);

/// A KeyDifference has a key and its value in each recipe; empty where a recipe does not have it.
struct KeyDifference {
  std::string key;
  std::vector<std::string> values;
};

/// Returns the keys in which the recipes are not all equal, in the order of the first recipe that has them.
/// The keys that name a run, `name` and `output`, are not compared.
std::vector<KeyDifference> recipe_differences(
    const std::vector<std::vector<std::pair<std::string, std::string>>>& recipes);

}  // namespace conclave
