#include "layers/moe/method_state.h"

namespace conclave {

Tensor MethodStates::of(const std::string& name) const {
  for (const MethodState& state : all)
    if (state.name == name) return state.values;
  return {};
}

MethodStates MethodStates::of_layer(std::int64_t layer) const {
  MethodStates result;
  for (const MethodState& state : all) {
    if (state.of == StateOf::model) {
      result.all.push_back(state);
      continue;
    }
    std::int64_t elements = 1;
    for (int dim = 1; dim < state.shape.dims(); ++dim) elements *= state.shape[dim];
    result.all.push_back({state.name, {elements}, state.values.part(layer * elements, {elements})});
  }
  return result;
}

MethodStates MethodStates::of_experts(const std::vector<std::int32_t>& experts) const {
  MethodStates result;
  const auto count = static_cast<std::int64_t>(experts.size());
  for (const MethodState& state : all) {
    if (state.of == StateOf::model) {
      result.all.push_back(state);
      continue;
    }
    const Tensor values = Tensor::empty({count}, DType::float64, state.values.device());
    for (std::int64_t i = 0; i < count; ++i)
      values.part(i, {1}).copy_from(state.values.part(experts[static_cast<std::size_t>(i)], {1}));
    result.all.push_back({state.name, {count}, values});
  }
  return result;
}

}  // namespace conclave
