// Routing inside groups: a token's experts come from a few of several groups of consecutive experts
// (DeepSeek-V2, arXiv 2405.04434; DeepSeek-V3, arXiv 2412.19437). The kernel `route` chooses the groups.
#include "layers/moe/methods.h"

namespace conclave {

Method routing_groups() {
  return {.choice = [](const MoeRecipe& moe, const MethodStates&, RouteRule& rule) {
    rule.groups = moe.router.n_group;
    rule.chosen_groups = moe.router.topk_group;
  }};
}

}  // namespace conclave
