// DeadExperts: an expert that no token has chosen for long learns nothing more; it is named once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/train/recipe.h"

namespace conclave {

class DeadExperts {
 public:
  explicit DeadExperts(const Recipe& recipe)
      : limit_(recipe.logging.dead_expert_steps),
        experts_(recipe.model.moe.num_experts),
        first_block_(recipe.model.moe.first_k_dense_replace) {}

  /// A sentence for each expert that has now been idle for logging.dead_expert_steps. `counts`: of a step,
  /// [layers, experts].
  std::vector<std::string> add(const std::vector<std::int64_t>& counts);

 private:
  std::int64_t limit_, experts_, first_block_;
  std::vector<std::int64_t> idle_steps_;  // [layers, experts]
};

}  // namespace conclave
