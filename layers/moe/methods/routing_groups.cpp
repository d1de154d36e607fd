#include "layers/moe/methods/routing_groups.h"

#include "layers/moe/methods.h"

namespace conclave {

Method routing_groups() {
  return {.choice = [](const MoeRecipe& moe, const MethodStates&, RouteRule& rule) {
    rule.groups = moe.router.n_group;
    rule.chosen_groups = moe.router.topk_group;
  }};
}

}  // namespace conclave
