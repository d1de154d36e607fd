#include "layers/moe/router.h"

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/methods.h"

namespace conclave {

Tensor TopK::choose(const Tensor& logits, const RouterInput& input) const {
  Tape tape(Tape::Mode::forward_only);
  return conclave::route(tape, {logits, {}}, input.input.tokens, route_options(input.input, top_k_, rule_))
      .experts;
}

Routing TopK::route(Tape& tape, const Variable& logits, const RouterInput& input,
                    const RouteRule& rule) const {
  RouteRule both = rule_;
  both.renormalise = rule.renormalise;
  both.scale = rule.scale;
  return conclave::route(tape, logits, input.input.tokens, route_options(input.input, top_k_, both));
}

namespace {

/// Logits that are -infinity where masks have made `closed` of `open`.
Tensor closed_alike(const Tensor& logits, const Tensor& open, const Tensor& closed) {
  const Kernels& kernels = kernels_of(logits);
  const Tensor change = closed.clone(),
               result = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
  kernels.add_scaled(open, -1.0, change);  // 0, or -infinity
  kernels.add(logits, change, result);
  return result;
}

}  // namespace

Routing ComposedRouter::route(Tape& tape, const RouterInput& input) const {
  const Scored scored = steps_.scores->scored(tape, input);
  const Variable whole = to_type(tape, scored.logits, sum_type(scored.logits.value.dtype()));
  Variable logits = whole;
  if (!steps_.masks.empty()) {
    // The gradient is handed on as it is: for -infinity, p is 0, and with it the gradient that comes back.
    logits.value = logits.value.clone();
    for (const auto& mask : steps_.masks) mask->close(input, logits.value);
  }
  Routing routing = steps_.selection->route(tape, logits, input, steps_.weights);
  if (scored.counted.value.defined()) {
    Variable counted = to_type(tape, scored.counted, logits.value.dtype());
    if (!steps_.masks.empty()) counted.value = closed_alike(counted.value, whole.value, logits.value);
    routing.statistics = weigh(tape, counted, input.input.tokens, routing.experts,
                               route_options(input.input, steps_.selection->slots(), steps_.weights))
                             .statistics;
  }
  routing.statistics.numbers = scored.numbers;
  return routing;
}

RouteRule route_rule(const MoeRecipe& moe, const MethodStates& states) {
  const RouterRecipe& router = moe.router;
  RouteRule rule{
      .score = router.kind == RouterKind::sigmoid ? RouteRule::Score::sigmoid : RouteRule::Score::softmax,
      .renormalise = router.norm_topk_prob,
      .scale = router.routed_scaling_factor};
  for (const Method& method : methods())
    if (method.choice != nullptr) method.choice(moe, states, rule);
  return rule;
}

std::unique_ptr<Router> compose_router(std::unique_ptr<Scores> scores, const std::string& name,
                                       const MoeRecipe& moe, const MethodStates& states) {
  const RouteRule rule = route_rule(moe, states);
  ComposedRouter::Steps steps{.scores = std::move(scores), .masks = {}, .selection = {}, .weights = rule};
  for (const Method& method : methods())
    if (method.mask != nullptr)
      if (auto mask = method.mask(moe, name, states)) steps.masks.push_back(std::move(mask));
  steps.selection = std::make_unique<TopK>(moe.num_experts_per_tok, rule);
  return std::make_unique<ComposedRouter>(std::move(steps));
}

std::unique_ptr<Router> make_router(ParameterSet& parameters, const std::string& name,
                                    const ModelRecipe& model, const MethodStates& states) {
  const std::string gate = name + ".gate";
  std::unique_ptr<Scores> scores;
  for (const Method& method : methods())
    if (method.scores != nullptr)
      if (auto made = method.scores(parameters, gate, model)) {
        check(!scores, Fault::request, "model.moe: two methods came that both make the scores of ", gate,
              "; expected at most one");
        scores = std::move(made);
      }
  if (!scores) scores = std::make_unique<LinearScores>(parameters, gate, model);
  return compose_router(std::move(scores), name, model.moe, states);
}

}  // namespace conclave
