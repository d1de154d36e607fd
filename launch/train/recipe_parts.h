// The recipes of a run: recipe.yaml is the one it has now, and recipes/step-00000100.yaml the one of the part
// that began after step 100. A resume with an unchanged recipe begins no part.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace conclave {

/// Keeps this recipe for the part of a run that begins now, at its start or after `resumed_step`. Parts that
/// began later are forgotten with their steps. `resumed_recipe` is the checkpoint's, for a run that has kept
/// no part so far.
void keep_recipe(const std::filesystem::path& run, const std::string& recipe,
                 std::optional<std::int64_t> resumed_step, const std::string& resumed_recipe);

/// Says whether a run has kept the recipe of a part there.
bool has_recipe_parts(const std::filesystem::path& run);

}  // namespace conclave
