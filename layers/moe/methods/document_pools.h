// DocumentPools: each document of a micro-batch may use a pool of experts alone (EMO, arXiv 2605.06663). They
// are those with the largest sums over the document of softmax(logits); the sums carry no gradient. This
// file draws how large the pools of one layer are, and joins what tensor ranks have of the same document. A
// pool changes a router by logits of -infinity alone: probability and gradient there are 0.
//
// In training a pool's size is uniform over minimum .. maximum. The key of the draw is the seed, the step,
// the router's name, the position of the sequence in the step and the ordinal of the document in its
// sequence. So no layout, no size of micro-batches and no recomputation changes it. Outside of training every
// pool has `evaluation` experts.
//
// A document that lies across tensor ranks is the last of one, all of some and the first of another. Each
// boundary between two ranks has a place for the document that begins last before it. So one small all-reduce
// of a fixed size joins them all, however many documents there are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "framework/recipe/requirements.h"

namespace conclave {

struct DocumentSpan;
struct DrawPlace;
struct ModelInput;
struct RouterInput;
class Mask;
class Tensor;

/// Experts that a document's tokens may use, the same for all of them (EMO); maximum 0: all experts.
struct PoolRecipe {
  std::int64_t minimum = 0;     // in training as many as a uniform draw from here ...
  std::int64_t maximum = 0;     // ... to here says, for each document and layer
  std::int64_t evaluation = 0;  // outside of training
  bool operator==(const PoolRecipe&) const = default;
};

inline void describe(Visitor& v, PoolRecipe& p) {
  v.key({"minimum",
         &p.minimum,
         "fewest experts in a document's pool in training",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"maximum",
         &p.maximum,
         "most of them, each number equally likely; 0: no pools",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"evaluation",
         &p.evaluation,
         "experts in a pool outside of training: evaluate, generate, validation",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
}

/// Checks what its keys mean together.
template <class Moe>
void require_pools(const Requirements& r, const Moe& moe) {
  const PoolRecipe& pool = moe.router.pool;
  const std::string key = "model.moe.router.pool";
  if (pool.maximum == 0) {
    r.require(pool.minimum == 0, key + ".maximum", "0 means no pools, but minimum is ", pool.minimum,
              "; expected the most experts in a pool, or minimum: 0");
    r.require(pool.evaluation == 0, key + ".maximum", "0 means no pools, but evaluation is ", pool.evaluation,
              "; expected the most experts in a pool, or evaluation: 0");
    return;
  }
  const std::int64_t top_k = moe.num_experts_per_tok;
  r.require(pool.minimum >= top_k && pool.minimum <= pool.maximum, key + ".minimum", pool.minimum,
            " came, expected at least model.moe.num_experts_per_tok: ", top_k,
            " and at most maximum: ", pool.maximum);
  // EMO draws up to the number of all experts, shared ones included; from the routed ones on, nothing is
  // masked.
  r.require(pool.maximum <= moe.num_experts + moe.num_shared_experts, key + ".maximum", pool.maximum,
            " came, expected at most model.moe.num_experts and num_shared_experts together: ",
            moe.num_experts + moe.num_shared_experts);
  r.require(pool.evaluation >= top_k && pool.evaluation <= moe.num_experts, key + ".evaluation",
            pool.evaluation, " came, expected at least model.moe.num_experts_per_tok: ", top_k,
            " and at most model.moe.num_experts: ", moe.num_experts);
  r.require(moe.router.kind == decltype(moe.router.kind)::softmax, key,
            "pools came with model.moe.router.kind: ", moe.router.kind,
            ", but a pool is chosen by softmax probabilities; expected softmax, or maximum: 0");
  r.require(moe.router.n_group == 1, key, "pools came with model.moe.router.n_group: ", moe.router.n_group,
            "; a choice within groups may find too few experts of the pool; expected 1, or maximum: 0");
}

class DocumentPools {
 public:
  /// name: what tells the draws of layers apart.
  DocumentPools(const PoolRecipe& recipe, const std::string& name) : recipe_(recipe), name_(name) {}

  /// The input must be one by to_device(). Collective over input.micro_batch.
  void close(const RouterInput& input, const Tensor& logits) const;

  /// This rank's documents, int32 [documents, 3]: first token, the one after the last, experts in the pool.
  Tensor documents_of(const ModelInput& shard) const;
  /// Experts in the pool of one document.
  std::int64_t size_of(const DocumentSpan& document, const std::optional<DrawPlace>& draws) const;

 private:
  PoolRecipe recipe_;
  std::string name_;
};

/// As a step of routing.
std::unique_ptr<Mask> pool_mask(const DocumentPools& pools);

}  // namespace conclave
