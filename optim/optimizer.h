// Optimizer: moves the values that this rank owns, once a step, and keeps named states from step to step.
// Checkpoints and converters ask for the states and know no optimizer by name. An optimizer is one file of
// this folder and its entry in optimizers.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "optim/recipe.h"
#include "parallel/gradient_reducer.h"

namespace conclave {

/// An optimizer keeps one value of every owned element in a state. Checkpoints call it
/// optimizer/NAME/PARAMETER.
struct NamedState {
  std::string name;  // "moment2" is a second moment, the one state that may hold infinity (store/finite.h)
  Tensor values;     // [GradientReducer::owned_elements()], by OwnedSpan::state_offset
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Updates the owned values once, after GradientReducer::finish(). Gradients are multiplied by
  /// gradient_scale first, which is how they are clipped.
  void step(double learning_rate, double gradient_scale) {
    ++updates_;
    update(learning_rate, gradient_scale);
  }

  /// The states come in an order of the optimizer's own, the same on all ranks; their tensors are the ones
  /// that step() changes.
  virtual std::vector<NamedState> states() const = 0;

  /// Counts the updates done so far, the one under way included. A checkpoint keeps the count with the
  /// states.
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }

 protected:
  Optimizer() = default;
  virtual void update(double learning_rate, double gradient_scale) = 0;

 private:
  std::int64_t updates_ = 0;
};

/// An OptimizerKind is a value of optimizer.kind.
struct OptimizerKind {
  std::string name;
  /// Says what of a parameter must not be divided between two replicas; where it is null, nothing but single
  /// elements.
  OwnedUnit (*owned_unit)(const Parameter&, const OptimizerRecipe&) = nullptr;
  /// The optimizer keeps references to the parameters, and nothing of the reducer.
  std::unique_ptr<Optimizer> (*make)(const ParameterSet&, const GradientReducer&, const OptimizerRecipe&);
};

const std::vector<OptimizerKind>& optimizer_kinds();
/// A name that is none of them is a Fault::request.
const OptimizerKind& optimizer_kind(const std::string& name);

/// Returns the owned_unit of recipe.kind, as the reducer is given it.
OwnedUnitOf owned_unit_of(const OptimizerRecipe& recipe);

/// Makes the optimizer of recipe.kind. The reducer must have been given its owned_unit_of. A group whose
/// pattern matches no parameter is a Fault::request.
std::unique_ptr<Optimizer> make_optimizer(const ParameterSet& parameters, const GradientReducer& reducer,
                                          const OptimizerRecipe& recipe);

/// Returns the states that the recipe's optimizer begins with, without elements. Converters need their names
/// and types for checkpoints that no training wrote. `kept` is the type of weights and gradients.
std::vector<NamedState> states_at_beginning(const OptimizerRecipe& recipe, DType kept);

/// Returns zeros for every owned element, in the type of the values.
Tensor new_state(const ParameterSet& parameters, const GradientReducer& reducer);

}  // namespace conclave
