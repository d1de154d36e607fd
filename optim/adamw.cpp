#include "optim/adamw.h"

#include <algorithm>
#include <cmath>

namespace conclave {
namespace {

/// The first group whose pattern matches, or none.
const ParameterGroupRecipe* group_of(const OptimizerRecipe& recipe, std::string_view name) {
  for (const ParameterGroupRecipe& group : recipe.groups)
    if (matches(group.pattern, name)) return &group;
  return nullptr;
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  // Greedy with one point of return: the last * takes one letter more whenever what follows it fails.
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void check_groups(const ParameterSet& parameters, const OptimizerRecipe& recipe) {
  for (const ParameterGroupRecipe& group : recipe.groups)
    check(std::any_of(parameters.all().begin(), parameters.all().end(),
                      [&](const Parameter& parameter) { return matches(group.pattern, parameter.name); }),
          Fault::request, "optimizer.groups: the pattern \"", group.pattern,
          "\" matches no parameter; `conclave inspect` on a checkpoint lists the names");
}

void freeze(ParameterSet& parameters, const OptimizerRecipe& recipe) {
  for (Parameter& parameter : parameters.all()) {
    const ParameterGroupRecipe* group = group_of(recipe, parameter.name);
    parameter.frozen = group != nullptr && group->frozen;
  }
}

AdamW::AdamW(const ParameterSet& parameters, const GradientReducer& reducer, const OptimizerRecipe& recipe)
    : parameters_(parameters),
      recipe_(recipe),
      moment1_(Tensor::zeros({reducer.owned_elements()}, parameters.values().dtype(),
                             parameters.values().device(), MemoryPurpose::optimizer)),
      moment2_(Tensor::zeros({reducer.owned_elements()}, parameters.values().dtype(),
                             parameters.values().device(), MemoryPurpose::optimizer)) {
  check_groups(parameters, recipe_);
  std::vector<FlatSpan> spans;
  for (const OwnedSpan& span : reducer.owned()) {
    const ParameterGroupRecipe* group = group_of(recipe_, span.parameter->name);
    const double decay = span.parameter->decay == Decay::yes ? recipe_.weight_decay : 0.0;
    spans.push_back(
        {.first = span.offset,
         .first_state = span.state_offset,
         .elements = span.elements,
         .factor = group != nullptr ? group->lr_scale : 1.0,
         .weight_decay = group != nullptr && group->weight_decay >= 0 ? group->weight_decay : decay});
  }
  pieces_ = Pieces::of(spans, parameters.values().device());
}

void AdamW::step(double learning_rate, double gradient_scale) {
  ++updates_;
  const double beta1 = recipe_.betas[0], beta2 = recipe_.betas[1], t = static_cast<double>(updates_);
  kernels_of(moment1_).adamw({.learning_rate = learning_rate,
                              .beta1 = beta1,
                              .beta2 = beta2,
                              .epsilon = recipe_.eps,
                              .correction1 = 1 - std::pow(beta1, t),
                              .correction2 = 1 - std::pow(beta2, t),
                              .gradient_scale = gradient_scale},
                             pieces_, parameters_.gradients(), parameters_.values(), moment1_, moment2_);
}

}  // namespace conclave
