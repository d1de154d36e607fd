// Capacity: the most assignments that an expert takes from one packed sequence; the rest are dropped. It
// knows no weights, and ranks only as the communicator whose ranks share the micro-batch.
//
// A sequence is the group in which places are shared out (GShard's groups: Lepikhin et al., arXiv 2006.16668,
// section 2.2), since no layout and no micro-batch size cuts the global batch differently into sequences. Of
// the assignments of a sequence to an expert those with the largest p stay (kin to V-MoE's batch prioritised
// routing: Riquelme et al., arXiv 2106.05974, section 4.1); of equal ones the lower token. Equal tokens are
// common (a word repeated at the beginning of a document), and on another layout the last digits of their p
// differ; so p is compared by the first half of its digits. Whether a token keeps a place may depend on later
// tokens of its sequence, and on other documents packed into it.
#pragma once

#include "layers/moe/methods.h"

namespace conclave {

class Capacity final : public Limit {
 public:
  explicit Capacity(double factor) : factor_(factor) {}

  /// `routing` with -1 for each assignment beyond expert_capacity() (framework/recipe/model_size.h) of the
  /// nominal length of a sequence. The weights of those that stay are what they were, not made to sum to 1
  /// again, so what is dropped is missing from the sum and its token keeps its residual path. Padding takes
  /// no place. The statistics get the counts "dropped": this rank's dropped assignments. Collective over
  /// input.micro_batch. Fault::request when the router leaves no probabilities.
  Routing limit(const Routing& routing, const RouterInput& input) const override;

 private:
  double factor_;
};

}  // namespace conclave
