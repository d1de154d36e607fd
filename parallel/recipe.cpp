#include "parallel/recipe.h"

#include "framework/recipe/requirements.h"

namespace conclave {

void describe(Visitor& v, ParallelRecipe& p) {
  v.key({"tensor", &p.tensor, "ranks that share each matrix", size()});
  v.key({"expert", &p.expert, "ranks that share the experts of a block", size()});
  v.key({"expert_tensor", &p.expert_tensor, "ranks that share the matrices of one expert", size()});
  v.key({"sequence", &p.sequence, "split activations over the tensor ranks too", {}});
  v.key({"zero", &p.zero, "sharded over replicas: 0 nothing, 1 the optimizer's states", between(0, 1)});
  v.key({"dispatcher", &p.dispatcher, "how tokens reach experts on other ranks"});
  v.key({"dispatch_rows", &p.dispatch_rows,
         "most rows a rank receives from all_to_all at once, in rounds if need be; 0: no bound",
         count_or_zero()});
}

void require_possible(const Requirements& r, const ParallelRecipe& p, std::int64_t ranks) {
  r.require(ranks % p.tensor == 0, "parallel.tensor", p.tensor, " does not divide ", ranks, " ranks");
  // Compared before they are multiplied: absurd degrees must not overflow.
  r.require(p.expert <= ranks && p.expert_tensor <= ranks && ranks % (p.expert * p.expert_tensor) == 0,
            "parallel.expert", p.expert, " times parallel.expert_tensor: ", p.expert_tensor,
            " does not divide ", ranks, " ranks");
  r.require(p.dispatch_rows == 0 || p.dispatcher == DispatcherKind::all_to_all, "parallel.dispatch_rows",
            p.dispatch_rows, " came with the dispatcher '", p.dispatcher,
            "', which gathers all rows at once and keeps no bound; expected 0, or dispatcher: all_to_all");
}

MeshDegrees degrees_of(const ParallelRecipe& parallel) {
  return {.tensor = parallel.tensor, .expert = parallel.expert, .expert_tensor = parallel.expert_tensor};
}

}  // namespace conclave
