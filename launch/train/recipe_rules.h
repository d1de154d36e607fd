// The meaning of a whole recipe: the rules of its sections, and those over several sections. The rules of
// single keys are checked once more, for recipes that were built in C++ rather than read.
#pragma once

#include <string>
#include <vector>

#include "launch/train/recipe.h"

namespace conclave {

/// Throws Fault::request with the first thing that makes this recipe impossible on so many ranks. The
/// sentence names file and line where the key came from one, the numbers, and what would be valid.
void validate_recipe(const Recipe& recipe, int ranks);

/// Returns sentences about keys that are accepted but not acted on in this version, or do not do what they
/// seem to. A run shows them once at its start.
std::vector<std::string> warnings(const Recipe& recipe);

}  // namespace conclave
