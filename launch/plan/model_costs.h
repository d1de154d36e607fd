// model_costs: the model of a recipe as a tree of its parts, each with its parameters, its arithmetic and its
// memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/train/recipe.h"

namespace conclave {

/// A CostRow is a line of the tree.
struct CostRow {
  std::string name;         // with its branch in front: "│  ├─ router"
  std::int64_t total = 0;   // parameters; 0: a line that only holds those below together
  std::int64_t active = 0;  // that one token meets
  double flops = 0;         // of training_flops_per_token, which they add up to
  double bytes = 0;         // of one rank: parameters, gradients and moments, without alignment
};

/// Parts that the model does not have are left out; the last row is the sum. The recipe must be valid on the
/// ranks.
std::vector<CostRow> model_costs(const Recipe& recipe, int ranks);

}  // namespace conclave
