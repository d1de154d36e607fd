// DocumentPools: each document of a micro-batch may use a pool of experts alone (EMO, arXiv 2605.06663). They
// are those with the largest sums over the document of softmax(logits); the sums carry no gradient. Here is
// drawn how large the pools of one layer are, and joined what tensor ranks have of the same document. What a
// pool changes about a router, it changes by logits of -infinity: probability and gradient there are 0.
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

#include "layers/moe/methods.h"

namespace conclave {

class DocumentPools final : public Mask {
 public:
  /// name: what tells the draws of layers apart.
  DocumentPools(const PoolRecipe& recipe, const std::string& name) : recipe_(recipe), name_(name) {}

  /// The input must be one by to_device(). Collective over input.micro_batch.
  void close(const RouterInput& input, const Tensor& logits) const override;

  /// This rank's documents, int32 [documents, 3]: first token, the one after the last, experts in the pool.
  Tensor documents_of(const ModelInput& shard) const;
  /// Experts in the pool of one document.
  std::int64_t size_of(const DocumentSpan& document, const std::optional<DrawPlace>& draws) const;

 private:
  PoolRecipe recipe_;
  std::string name_;
};

}  // namespace conclave
