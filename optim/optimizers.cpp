// The list of optimizers, and how one is made of a recipe.
#include "framework/recipe/nearest.h"
#include "optim/groups.h"
#include "optim/optimizer.h"

namespace conclave {

OptimizerKind adamw();  // adamw.cpp

const std::vector<OptimizerKind>& optimizer_kinds() {
  static const std::vector<OptimizerKind> kinds = {
      adamw(),
  };
  return kinds;
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const OptimizerKind& kind : optimizer_kinds()) names.push_back(kind.name);
  return names;
}

const OptimizerKind& optimizer_kind(const std::string& name) {
  for (const OptimizerKind& kind : optimizer_kinds())
    if (kind.name == name) return kind;
  fail(Fault::request, "optimizer.kind: \"", name, "\" came, expected one of ",
       join_words(optimizer_names()));
}

OwnedUnitOf owned_unit_of(const OptimizerRecipe& recipe) {
  const auto unit = optimizer_kind(recipe.kind).owned_unit;
  if (unit == nullptr) return {};
  return [unit, recipe](const Parameter& parameter) { return unit(parameter, recipe); };
}

std::unique_ptr<Optimizer> make_optimizer(const ParameterSet& parameters, const GradientReducer& reducer,
                                          const OptimizerRecipe& recipe) {
  check_groups(parameters, recipe);
  return optimizer_kind(recipe.kind).make(parameters, reducer, recipe);
}

std::vector<NamedState> states_at_beginning(const OptimizerRecipe& recipe, DType kept) {
  OptimizerRecipe without_groups = recipe;
  without_groups.groups.clear();  // there are no parameters to match
  ParameterSet none;
  none.materialize(kept, 0);
  const GradientReducer reducer(none, Mesh::alone());
  return make_optimizer(none, reducer, without_groups)->states();
}

Tensor new_state(const ParameterSet& parameters, const GradientReducer& reducer) {
  return Tensor::zeros({reducer.owned_elements()}, parameters.values().dtype(), parameters.values().device(),
                       MemoryPurpose::optimizer);
}

}  // namespace conclave
