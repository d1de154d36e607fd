#include "layers/moe/methods.h"

#include <algorithm>
#include <numeric>

namespace conclave {

// Each is in the file of its name in layers/moe/methods/.
Method balance_terms();
Method z_loss();
Method capacity();
Method cosine_scores();
Method document_pools();
Method routing_groups();
Method selection_bias();
Method vocabulary_mask();

LoadScopeKind sequence_scope();
LoadScopeKind micro_batch_scope();
LoadScopeKind group_scope();
LoadScopeKind data_parallel_scope();
LoadScopeKind shuffle_scope();
LoadScopeKind global_batch_scope();

const std::vector<Method>& methods() {
  // Their sums over ranks travel in this order.
  static const std::vector<Method> all = {
      balance_terms(),  z_loss(),         capacity(),      document_pools(),
      routing_groups(), selection_bias(), cosine_scores(), vocabulary_mask(),
  };
  return all;
}

const std::vector<LoadScopeKind>& load_scopes() {
  static const std::vector<LoadScopeKind> all = {
      sequence_scope(),      micro_batch_scope(), group_scope(),
      data_parallel_scope(), shuffle_scope(),     global_batch_scope(),
  };
  return all;
}

MethodStates make_states(const ModelRecipe& model, Device& device) {
  MethodStates states;
  const std::int64_t layers = count_moe_layers(model);
  for (const Method& method : methods())
    if (layers > 0 && method.keeps_state != nullptr && method.keeps_state(model.moe)) {
      const bool whole = method.shape_of_state != nullptr;
      const Shape shape = whole ? method.shape_of_state(model) : Shape{layers, model.moe.num_experts};
      states.all.push_back({std::string(method.state), shape, Tensor::zeros(shape, DType::float64, device),
                            whole ? StateOf::model : StateOf::experts});
    }
  return states;
}

namespace {

/// What has been learnt from a text is nowhere zero alone.
bool is_unknown(const Tensor& state) {
  const std::vector<double> values = state.to_host<double>();
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

}  // namespace

bool wants_text(const MethodStates& states) {
  for (const Method& method : methods())
    if (method.learn_from_text != nullptr)
      if (const Tensor state = states.of(std::string(method.state)); state.defined() && is_unknown(state))
        return true;
  return false;
}

void learn_from_text(const MoeRecipe& moe, const std::vector<std::int64_t>& count_of_id,
                     const MethodStates& states) {
  for (const Method& method : methods())
    if (method.learn_from_text != nullptr)
      if (const Tensor state = states.of(std::string(method.state)); state.defined() && is_unknown(state))
        method.learn_from_text(moe, count_of_id, state);
}

void check_keeps_state(const MethodStates& states, const std::string& name, const std::string& checkpoint) {
  if (states.of(name).defined()) return;
  for (const Method& method : methods())
    check(method.state != name, Fault::request,
          method.state == name ? method.state_is_lost(checkpoint) : std::string());
}

std::string looks_at_other_tokens(const MoeRecipe& moe) {
  for (const Method& method : methods())
    if (method.looks_at_other_tokens != nullptr)
      if (std::string reason = method.looks_at_other_tokens(moe); !reason.empty()) return reason;
  return "";
}

void act_always(MoeRecipe& moe) {
  for (const Method& method : methods())
    if (method.act_always != nullptr) method.act_always(moe);
}

std::int64_t period_of_methods(const MoeRecipe& moe, std::int64_t sequences) {
  std::int64_t period = 1;
  for (const Method& method : methods())
    if (method.period != nullptr) period = std::lcm(period, method.period(moe, sequences));
  return period;
}

}  // namespace conclave
