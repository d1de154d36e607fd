// Dispatcher: brings each token's hidden state to its experts, has them computed, and brings the weighted sum
// of their answers back. It knows no routing rule and no weights of experts. Three of them, with the same
// result:
//   LocalDispatcher      all experts are on this rank: only a sort
//   AllToAllDispatcher   each assignment travels to the rank of its expert and back; dropless, any skew
//   AllGatherDispatcher  every rank of the group sees all tokens and answers for its own experts; for
//                        small groups
// A dispatch comes in two steps: begin() sends the tokens, and what it hands back finishes. Tokens travel
// while the caller computes in between, in forward and in backward. The group is the expert x expert_tensor
// ranks, which hold one copy of all experts: rank (e, t) holds the experts of part e, cut into columns t. The
// tokens of its ranks are all different.
#pragma once

#include <functional>
#include <memory>

#include "framework/autograd/ops/routing.h"
#include "parallel/mesh.h"

namespace conclave {

/// The experts of this rank: rows [rows, hidden] sorted by its experts, offsets int64 [experts of this rank +
/// 1] -> the same rows' outputs. With expert_tensor ranks they are this rank's terms of sums.
using ExpertFunction = std::function<Variable(Tape& tape, const Variable& rows, const RowOffsets& offsets)>;

/// Finishes a dispatch that has begun, and is called once -> [tokens, hidden]: the sum over each token's
/// experts, weighted by routing.weights. It goes on recording on the tape of the beginning.
using FinishDispatch = std::function<Variable(const ExpertFunction& experts)>;

class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  /// x [tokens, hidden]. Collective over the group, and so is the finish.
  [[nodiscard]] virtual FinishDispatch begin(Tape& tape, const Variable& x, const Routing& routing) const = 0;
};

class LocalDispatcher final : public Dispatcher {
 public:
  explicit LocalDispatcher(std::int64_t experts) : experts_(experts) {}
  FinishDispatch begin(Tape& tape, const Variable& x, const Routing& routing) const override;

 private:
  std::int64_t experts_;
};

struct AllToAllOptions {
  std::int64_t experts = 0;        // of the model
  std::int64_t expert_tensor = 1;  // ranks that share each expert
  /// The most rows that a rank receives at once; 0: no bound. When some rank of the group would receive more,
  /// all go in several rounds whose activations are recomputed in backward: skew costs time, not memory.
  /// Several rounds all travel in the finish.
  std::int64_t most_rows = 0;
};

class AllToAllDispatcher final : public Dispatcher {
 public:
  AllToAllDispatcher(Communicator& group, const AllToAllOptions& options);
  FinishDispatch begin(Tape& tape, const Variable& x, const Routing& routing) const override;

 private:
  /// For each copy of an assignment (token, k, expert_tensor rank): where it goes, as (rank, expert there),
  /// or -1, and in which round.
  struct Plan;
  Plan plan(const Tensor& chosen) const;
  FinishDispatch begin_round(Tape& tape, const Variable& x, const Variable& weights,
                             const Tensor& destinations) const;

  Communicator& group_;
  AllToAllOptions options_;
  std::int64_t experts_here_;
};

class AllGatherDispatcher final : public Dispatcher {
 public:
  AllGatherDispatcher(Communicator& group, std::int64_t experts, std::int64_t expert_tensor);
  FinishDispatch begin(Tape& tape, const Variable& x, const Routing& routing) const override;

 private:
  Communicator& group_;
  std::int64_t experts_here_, first_expert_;
};

}  // namespace conclave
