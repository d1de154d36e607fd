#include "layers/moe.h"

namespace conclave {

std::unique_ptr<Router> make_router(ParameterSet& parameters, const std::string& name,
                                    const ModelRecipe& model) {
  const MoeRecipe& moe = model.moe;
  check(moe.router.kind == "softmax", Fault::request, "model.moe.router.kind: \"", moe.router.kind,
        "\" came, the known router is softmax");
  return std::make_unique<SoftmaxRouter>(
      parameters, name,
      SoftmaxRouter::Options{.hidden = model.hidden_size,
                             .experts = moe.num_experts,
                             .top_k = moe.num_experts_per_tok,
                             .renormalise = moe.router.norm_topk_prob,
                             .initializer_range = model.initializer_range});
}

Moe::Moe(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
         const InitialRange& range)
    : router_(make_router(parameters, name + ".gate", model)),
      dispatcher_(std::make_unique<LocalDispatcher>(model.moe.num_experts)),
      experts_(parameters, name + ".experts",
               {model.moe.num_experts, model.hidden_size, model.moe.moe_intermediate_size}, range) {
  if (model.moe.num_shared_experts > 0)
    shared_experts_.emplace(parameters, name + ".shared_experts", model.hidden_size,
                            model.moe.num_shared_experts * model.moe.moe_intermediate_size, range);
}

Moe::Result Moe::forward(Tape& tape, const Variable& x, const ModelInput& input) const {
  const Routing routing = router_->route(tape, x, input);
  const DispatchedRows dispatched = dispatcher_->dispatch(tape, x, routing);
  const Variable outputs = experts_.forward(tape, dispatched.rows, dispatched.order.offsets);
  Variable y = dispatcher_->combine(tape, outputs, routing, dispatched);
  if (shared_experts_) y = add(tape, y, shared_experts_->forward(tape, x));
  return {y, routing.statistics};
}

}  // namespace conclave
