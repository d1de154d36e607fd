// DocumentPools: each document of a micro-batch may use a pool of experts alone (EMO, arXiv 2605.06663). Here
// is drawn how large the pools of one layer are, and joined what tensor ranks have of the same document;
// which experts are in a pool, and what follows from it, is in route() (framework/autograd/ops/routing.h).
//
// In training a pool's size is uniform over minimum .. maximum, drawn by the counter-based generator under
// the seed, the step, the router's name, the position of the sequence in the step and the ordinal of the
// document in its sequence: no layout, no size of micro-batches and no recomputation changes it. Outside of
// training every pool has `evaluation` experts.
//
// A document that lies across tensor ranks is the last of one, all of some and the first of another. Each
// boundary between two ranks has a place for the document that begins last before it, so one small all-reduce
// of a fixed size joins them all, however many documents there are.
#pragma once

#include <string>

#include "layers/model_input.h"
#include "layers/moe/recipe.h"
#include "parallel/communicator.h"

namespace conclave {

class DocumentPools {
 public:
  /// router: the name that tells the draws of layers apart.
  DocumentPools(const PoolRecipe& recipe, const std::string& router) : recipe_(recipe), router_(router) {}

  /// The pools of this rank's tokens. `micro_batch`: the ranks that hold even shares of the micro-batch, in
  /// order; join() is collective over them. `shard` is this rank's share, of an input by to_device().
  RoutePools of(const ModelInput& shard, Communicator& micro_batch) const;

  /// Experts in the pool of one document.
  std::int64_t size_of(const DocumentSpan& document, const std::optional<DrawPlace>& draws) const;

 private:
  PoolRecipe recipe_;
  std::string router_;
};

}  // namespace conclave
