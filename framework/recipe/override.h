// Overrides: "key.path=value" on a command line.
#pragma once

#include <string>

#include "framework/recipe/read.h"

namespace conclave {

/// Changes one key. The value is read as YAML; an element of a list is named by its index, as in
/// "data.train.0.weight=2".
void apply_override(const ReadTarget& target, const std::string& override_text);

/// A sentence where YAML reads the end of an override's value as a comment, as in name=exp #5; or "".
std::string comment_in_override(const std::string& override_text);

/// True of a command-line argument that has the form of an override rather than of a path.
bool is_override(const std::string& argument);

}  // namespace conclave
