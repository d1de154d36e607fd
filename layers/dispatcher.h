// Dispatcher: brings each token's hidden state to its experts, and the experts' answers back. It knows no
// weights and no routing rule. One rank holds all experts here; dispatchers that cross ranks have the same
// two calls.
#pragma once

#include "framework/autograd/ops/routing.h"

namespace conclave {

/// Rows on their way through the experts of this rank.
struct DispatchedRows {
  Variable rows;   // [rows, hidden], sorted by expert
  RowOrder order;  // order.offsets says which rows belong to which expert
};

class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  /// x [tokens, hidden]
  virtual DispatchedRows dispatch(Tape& tape, const Variable& x, const Routing& routing) const = 0;
  /// The weighted sum of each token's expert outputs: outputs [rows, hidden] -> [tokens, hidden]
  virtual Variable combine(Tape& tape, const Variable& outputs, const Routing& routing,
                           const DispatchedRows& dispatched) const = 0;
};

/// All experts are on this rank: only a sort.
class LocalDispatcher final : public Dispatcher {
 public:
  explicit LocalDispatcher(std::int64_t experts) : experts_(experts) {}

  DispatchedRows dispatch(Tape& tape, const Variable& x, const Routing& routing) const override {
    const RowOrder order = kernels_of(x.value).sort_by_expert(routing.experts, experts_);
    return {permute_rows(tape, x, order), order};
  }
  Variable combine(Tape& tape, const Variable& outputs, const Routing& routing,
                   const DispatchedRows& dispatched) const override {
    return combine_rows(tape, outputs, routing.weights, dispatched.order);
  }

 private:
  std::int64_t experts_;
};

}  // namespace conclave
