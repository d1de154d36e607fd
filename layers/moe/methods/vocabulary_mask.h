// The mask of MaskMoE (Su et al., arXiv 2407.09816): a token may use only the experts that were drawn for its
// id before training. A frequent id has several, every other id has one.
#pragma once

#include <cstdint>

#include "framework/recipe/requirements.h"

namespace conclave {

struct VocabularyMaskRecipe {
  std::int64_t visible = 0;     // experts of a frequent id; 0: no mask
  double frequent_share = 0.9;  // the fewest ids that make up this share of the training text are frequent
  std::uint64_t seed = 0;       // of the draws
  bool operator==(const VocabularyMaskRecipe&) const = default;
};

inline void describe(Visitor& v, VocabularyMaskRecipe& m) {
  v.key({"visible",
         &m.visible,
         "experts that tokens of a frequent id choose from; other ids have one; 0: no mask",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"frequent_share",
         &m.frequent_share,
         "the fewest ids that together make up this share of the training text are frequent",
         between(0, 1),
         {.gives_meaning_to = Saved::weights}});
  v.key({"seed",
         &m.seed,
         "of the draws of experts; part of the model, whatever training.seed is",
         {},
         {.gives_meaning_to = Saved::weights}});
}

/// Checks what its keys mean together with others.
template <class Moe>
void require_vocabulary_mask(const Requirements& r, const Moe& moe) {
  const VocabularyMaskRecipe& mask = moe.router.vocabulary;
  const std::string key = "model.moe.router.vocabulary";
  if (mask.visible == 0) return;
  r.require(mask.visible <= moe.num_experts, key + ".visible", mask.visible,
            " came, expected at most model.moe.num_experts: ", moe.num_experts);
  r.require(mask.visible >= moe.num_experts_per_tok, key + ".visible", mask.visible,
            " came, expected at least model.moe.num_experts_per_tok: ", moe.num_experts_per_tok);
  r.require(moe.router.n_group == 1, key + ".visible",
            "a mask by token id came with model.moe.router.n_group: ", moe.router.n_group,
            "; a choice within groups may find none of a token's experts; expected 1, or visible: 0");
  r.require(moe.router.pool.maximum == 0, key + ".visible",
            "a mask by token id came with model.moe.router.pool; a pool may have none of a token's experts; "
            "expected model.moe.router.pool.maximum: 0, or visible: 0");
  r.require(moe.capacity_factor == 0 || moe.num_experts_per_tok == 1, key + ".visible",
            "a mask by token id came with model.moe.capacity_factor: ", moe.capacity_factor,
            " and model.moe.num_experts_per_tok: ", moe.num_experts_per_tok,
            "; a capacity needs the same number of experts for every token, and rare ids have one; expected "
            "capacity_factor: 0, num_experts_per_tok: 1 or visible: 0");
}

}  // namespace conclave
