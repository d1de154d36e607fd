// Capacity: the most assignments that an expert takes from one packed sequence; the rest are dropped. It
// knows no weights, and ranks only as the communicator whose ranks share the micro-batch.
//
// A sequence is the group in which places are shared out (GShard's groups: Lepikhin et al., arXiv 2006.16668,
// section 2.2), since no layout and no micro-batch size cuts the global batch differently into sequences. A
// sequence keeps its assignments to an expert that have the largest p (kin to V-MoE's batch prioritised
// routing: Riquelme et al., arXiv 2106.05974, section 4.1). Between equal p the lower token stays. Equal
// tokens are common (a word repeated at the beginning of a document), and on another layout the last digits
// of their p differ. So p is compared by the first half of its digits. Later tokens of a sequence, and other
// documents packed into it, may take a token's place.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "framework/recipe/requirements.h"

namespace conclave {

struct Routing;
struct RouterInput;

/// The key of model.moe.
inline void describe_capacity(Visitor& v, double& factor) {
  v.key({"capacity_factor",
         &factor,
         "an expert takes at most this times its even share of each sequence and the rest is dropped; 0: no "
         "bound",
         at_least(0),
         {.gives_meaning_to = Saved::weights}});
}

/// The most assignments that an expert takes from one sequence when model.moe.capacity_factor is above 0:
/// floor(capacity_factor * sequence_length * top_k / experts), and never more than the sequence has tokens.
inline std::int64_t expert_capacity(double capacity_factor, std::int64_t sequence_length, std::int64_t top_k,
                                    std::int64_t experts) {
  const double length = static_cast<double>(sequence_length);
  // The little more makes 0.29 of 100 places 29, although no binary fraction is 0.29.
  const double places =
      std::floor(capacity_factor * length * static_cast<double>(top_k) / static_cast<double>(experts) + 1e-9);
  return static_cast<std::int64_t>(std::min(places, length));
}

/// An expert must have a place in a sequence of this length.
template <class Moe>
void require_capacity(const Requirements& r, const Moe& moe, std::int64_t sequence_length) {
  const double even_share = static_cast<double>(sequence_length) *
                            static_cast<double>(moe.num_experts_per_tok) /
                            static_cast<double>(moe.num_experts);
  r.require(moe.capacity_factor == 0 || expert_capacity(moe.capacity_factor, sequence_length,
                                                        moe.num_experts_per_tok, moe.num_experts) > 0,
            "model.moe.capacity_factor", moe.capacity_factor, " of an expert's even share of a sequence, ",
            even_share, " assignments (data.sequence_length: ", sequence_length,
            " times num_experts_per_tok: ", moe.num_experts_per_tok, " over num_experts: ", moe.num_experts,
            "), is less than one place, and everything would be dropped; expected at least ", 1 / even_share,
            ", or 0 to drop nothing");
}

class Capacity {
 public:
  explicit Capacity(double factor) : factor_(factor) {}

  /// `routing` with -1 for each assignment beyond expert_capacity() of the
  /// nominal length of a sequence. The weights of those that stay are what they were, not made to sum to 1
  /// again, so what is dropped is missing from the sum and its token keeps its residual path. Padding takes
  /// no place. The statistics get the counts "dropped": this rank's dropped assignments. Collective over
  /// input.micro_batch. Fault::request when the router leaves no probabilities.
  Routing limit(const Routing& routing, const RouterInput& input) const;

 private:
  double factor_;
};

}  // namespace conclave
