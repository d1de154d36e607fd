// What the files of the plan share: plan.cpp, plan_memory.cpp, plan_network.cpp, plan_time.cpp,
// network_time.cpp.
#pragma once

#include "framework/recipe/plan.h"

namespace conclave {

inline double real(std::int64_t number) {
  return static_cast<double>(number);
}

/// Bytes of an activation and of a weight as ops read it.
inline double element_bytes(const Recipe& recipe) {
  return recipe.training.precision == "fp64" ? 8.0 : recipe.training.precision == "bf16" ? 2.0 : 4.0;
}
/// Bytes of what is summed up: master weights, gradients, moments, softmax and its like (sum_type).
inline double sum_bytes(const Recipe& recipe) {
  return recipe.training.precision == "fp64" ? 8.0 : 4.0;
}

inline bool shards_sequence(const ParallelRecipe& p) {
  return p.sequence && p.tensor > 1;
}

/// Ranks that hold one copy of all experts.
inline std::int64_t expert_group(const ParallelRecipe& p) {
  return p.expert * p.expert_tensor;
}

inline bool exchanges_rows(const ParallelRecipe& p) {
  return expert_group(p) > 1 && p.dispatcher == "all_to_all";
}

/// Bytes of the all-reduce over tensor ranks in which a layer with pools joins documents that lie across
/// them: float64 for each expert and boundary (layers/document_pools.h). 0 where there is none.
inline double pool_bytes(const Recipe& recipe) {
  const MoeRecipe& moe = recipe.model.moe;
  return moe.router.pool.maximum > 0 ? real(recipe.parallel.tensor - 1) * real(moe.num_experts) * 8 : 0;
}

/// How often a step's blocks run forward per micro-batch.
struct ForwardRuns {
  double counting = 0;   // 1 where a pass counts before the step
  double computing = 1;  // 2 under recomputation
};
ForwardRuns forward_runs(const Recipe& recipe, const LayoutPlan& layout);

/// Elements in the flat buffers, with the gap behind (ParameterSet::room_of).
inline double room_of(const ParameterPlan& parameter) {
  const std::int64_t unit = 16 * parameter.replicas;
  return real(parameter.count) * real((parameter.elements + unit - 1) / unit * unit);
}

}  // namespace conclave
