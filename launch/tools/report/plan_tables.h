// The plan of a run as tables for the report: the numbers that `conclave validate` prints.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "launch/train/recipe.h"

namespace conclave {

/// {"title", "rows": [[name, value, unit]...]} for parameters and, with ranks above 0, layout, memory and
/// network per rank. Throws Fault::request where the recipe is not valid on the ranks.
std::vector<nlohmann::ordered_json> plan_tables(const Recipe& recipe, int ranks);

}  // namespace conclave
