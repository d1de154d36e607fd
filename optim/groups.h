// Parameter groups: settings of an optimizer for the parameters whose name matches a pattern.
#pragma once

#include <string_view>

#include "framework/kernels/pieces.h"
#include "optim/recipe.h"
#include "parallel/gradient_reducer.h"

namespace conclave {

/// Says whether a name matches a pattern in which * stands for any text, none included.
bool matches(std::string_view pattern, std::string_view name);

/// A group whose pattern matches no parameter is a Fault::request.
void check_groups(const ParameterSet& parameters, const OptimizerRecipe& recipe);

/// A parameter has the settings of the first group that matches, or else those of the optimizer.
struct ParameterSettings {
  double lr_scale = 1;  // factor on the learning rate
  double weight_decay = 0;
  bool frozen = false;
};
ParameterSettings settings_of(const Parameter& parameter, const OptimizerRecipe& recipe);

/// Marks the parameters that the groups freeze. It is called before gradients are reduced, since frozen
/// parameters take no part.
void freeze(ParameterSet& parameters, const OptimizerRecipe& recipe);

/// Returns all that this rank owns, each element with the settings of its parameter, for kernels that treat
/// every element by itself.
Pieces owned_pieces(const ParameterSet& parameters, const GradientReducer& reducer,
                    const OptimizerRecipe& recipe);

}  // namespace conclave
