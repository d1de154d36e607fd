#include "optim/groups.h"

#include <algorithm>

namespace conclave {

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

ParameterSettings settings_of(const Parameter& parameter, const OptimizerRecipe& recipe) {
  const double decay = parameter.decay == Decay::yes ? recipe.weight_decay : 0.0;
  for (const ParameterGroupRecipe& group : recipe.groups)
    if (matches(group.pattern, parameter.name))
      return {.lr_scale = group.lr_scale,
              .weight_decay = group.weight_decay >= 0 ? group.weight_decay : decay,
              .frozen = group.frozen};
  return {.weight_decay = decay};
}

void freeze(ParameterSet& parameters, const OptimizerRecipe& recipe) {
  for (Parameter& parameter : parameters.all()) parameter.frozen = settings_of(parameter, recipe).frozen;
}

Pieces owned_pieces(const ParameterSet& parameters, const GradientReducer& reducer,
                    const OptimizerRecipe& recipe) {
  std::vector<FlatSpan> spans;
  for (const OwnedSpan& span : reducer.owned()) {
    const ParameterSettings settings = settings_of(*span.parameter, recipe);
    spans.push_back({.first = span.offset,
                     .first_state = span.state_offset,
                     .elements = span.elements,
                     .factor = settings.lr_scale,
                     .weight_decay = settings.weight_decay});
  }
  return Pieces::of(spans, parameters.values().device());
}

}  // namespace conclave
