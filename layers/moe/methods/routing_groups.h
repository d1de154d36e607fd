// Routing inside groups: a token's experts come from a few of several groups of consecutive experts
// (DeepSeek-V2, arXiv 2405.04434; DeepSeek-V3, arXiv 2412.19437). The kernel `route` chooses the groups.
#pragma once

#include "framework/recipe/requirements.h"

namespace conclave {

/// The keys of model.moe.router.
template <class Keys>
void describe_routing_groups(Visitor& v, Keys& router) {
  v.key({"n_group",
         &router.n_group,
         "groups of consecutive experts; 1: no groups",
         size(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"topk_group",
         &router.topk_group,
         "groups that a token's experts come from",
         size(),
         {.gives_meaning_to = Saved::weights}});
}

/// Checks what its keys mean together.
template <class Moe>
void require_routing_groups(const Requirements& r, const Moe& moe) {
  const auto& router = moe.router;
  r.require(moe.num_experts % router.n_group == 0, "model.moe.router.n_group", router.n_group,
            " does not divide model.moe.num_experts: ", moe.num_experts);
  r.require(router.topk_group <= router.n_group, "model.moe.router.topk_group", router.topk_group,
            " came, expected at most model.moe.router.n_group: ", router.n_group);
  r.require(moe.num_experts_per_tok <= moe.num_experts / router.n_group * router.topk_group,
            "model.moe.router.topk_group", router.topk_group, " groups of ", moe.num_experts / router.n_group,
            " experts cannot give a token model.moe.num_experts_per_tok: ", moe.num_experts_per_tok);
}

}  // namespace conclave
