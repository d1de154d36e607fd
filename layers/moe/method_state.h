// MethodState: what a method keeps from step to step. Checkpoints ask for these tensors and know no method.
#pragma once

#include <string>
#include <vector>

#include "framework/tensor/tensor.h"

namespace conclave {

/// What the numbers of a state belong to: each expert of each layer, or the whole model.
enum class StateOf { experts, model };

/// A float64 tensor that is the same on all ranks.
struct MethodState {
  std::string name;  // "state/NAME", as checkpoints call it
  Shape shape;
  Tensor values;  // undefined: nothing is known yet
  StateOf of = StateOf::experts;
};

/// Such numbers of an objective, which only the host reads.
struct ObjectiveState {
  std::string name;  // "state/NAME"
  Shape shape;
  std::vector<double> values;  // empty: nothing is known yet
};

/// The states of all methods that routers read, of a model [layers, ...] or of one layer [...].
struct MethodStates {
  std::vector<MethodState> all;

  /// Undefined where no method keeps this one.
  Tensor of(const std::string& name) const;
  /// Views of what belongs to one of the model's layers, or to all of them.
  MethodStates of_layer(std::int64_t layer) const;
  /// Copies of what belongs to some of a layer's experts, in their order.
  MethodStates of_experts(const std::vector<std::int32_t>& experts) const;
};

}  // namespace conclave
