// AdamW over a ParameterSet, with parameter groups by name pattern and clipping by global norm.
// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w = (1 - lr wd) w - lr (m / (1 - b1^t)) / (sqrt(v / (1 -
// b2^t)) + eps) (Kingma and Ba, arXiv 1412.6980; decoupled decay: Loshchilov and Hutter, arXiv 1711.05101).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "framework/recipe/recipe.h"
#include "parallel/gradient_reducer.h"

namespace conclave {

/// Whether a name matches a pattern in which * stands for any text, none included.
bool matches(std::string_view pattern, std::string_view name);

/// A group whose pattern matches no parameter is a Fault::request.
void check_groups(const ParameterSet& parameters, const OptimizerRecipe& recipe);

/// Marks the parameters that the groups freeze. Before gradients are reduced: frozen ones take no part.
void freeze(ParameterSet& parameters, const OptimizerRecipe& recipe);

class AdamW {
 public:
  /// Keeps moments for what the reducer says this rank owns.
  AdamW(const ParameterSet& parameters, const GradientReducer& reducer, const OptimizerRecipe& recipe);

  /// One update of the owned elements with this learning rate; gradients are multiplied by gradient_scale
  /// (clipping) first.
  void step(double learning_rate, double gradient_scale);

  /// Updates done so far: the t of the bias correction. Part of a checkpoint, with the moments.
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }
  /// [GradientReducer::owned_elements()]
  const Tensor& moment1() const { return moment1_; }
  const Tensor& moment2() const { return moment2_; }

 private:
  const ParameterSet& parameters_;
  OptimizerRecipe recipe_;
  Pieces pieces_;  // what this rank owns, each with the settings of its parameter's group
  Tensor moment1_, moment2_;
  std::int64_t updates_ = 0;
};

}  // namespace conclave
