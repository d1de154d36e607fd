// Changes are the differences between two objects with keys, key by key.
#pragma once

#include <string>
#include <vector>

#include "framework/recipe/visitor.h"

namespace conclave {

struct KeyChange {
  std::string key;            // its path: "data.train.0.weight"
  std::string before, after;  // as YAML; empty: the key is not there, as in a list that has become shorter
  bool operator==(const KeyChange&) const = default;
};

/// The changes in the order in which keys are written.
std::vector<KeyChange> changes_between(const SectionReference& before, const SectionReference& after);

/// "8 -> 16", "none -> 2"
std::string change_text(const KeyChange& change);

}  // namespace conclave
