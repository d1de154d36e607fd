#include "layers/moe.h"

#include "framework/device/profile.h"
#include "layers/capacity.h"

namespace conclave {

RouteRule route_rule(const RouterRecipe& router, const Tensor& selection_bias) {
  return {.score = router.kind == RouterKind::sigmoid ? RouteRule::Score::sigmoid : RouteRule::Score::softmax,
          .renormalise = router.norm_topk_prob,
          .scale = router.routed_scaling_factor,
          .groups = router.n_group,
          .chosen_groups = router.topk_group,
          .selection_bias = selection_bias};
}

std::unique_ptr<Router> make_router(ParameterSet& parameters, const std::string& name,
                                    const ModelRecipe& model, const Tensor& selection_bias) {
  const MoeRecipe& moe = model.moe;
  return std::make_unique<TopKRouter>(parameters, name,
                                      TopKRouter::Options{.hidden = model.hidden_size,
                                                          .experts = moe.num_experts,
                                                          .top_k = moe.num_experts_per_tok,
                                                          .rule = route_rule(moe.router, selection_bias),
                                                          .initializer_range = model.initializer_range});
}

namespace {

std::unique_ptr<Dispatcher> make_dispatcher(const MoeRecipe& moe, const Parallelism& parallelism) {
  Communicator& group = parallelism.mesh.axis(Axis::expert_group);
  const std::int64_t expert_tensor = parallelism.mesh.axis(Axis::expert_tensor).size();
  if (group.size() == 1) return std::make_unique<LocalDispatcher>(moe.num_experts);
  if (parallelism.dispatcher == DispatcherKind::all_gather)
    return std::make_unique<AllGatherDispatcher>(group, moe.num_experts, expert_tensor);
  return std::make_unique<AllToAllDispatcher>(group, AllToAllOptions{.experts = moe.num_experts,
                                                                     .expert_tensor = expert_tensor,
                                                                     .most_rows = parallelism.dispatch_rows});
}

}  // namespace

Moe::Moe(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
         const InitialRange& range, const Parallelism& parallelism, std::unique_ptr<Router> router)
    : parallelism_(parallelism),
      capacity_factor_(model.moe.capacity_factor),
      router_(std::move(router)),
      dispatcher_(make_dispatcher(model.moe, parallelism)),
      experts_(parameters, name + ".experts",
               {model.moe.num_experts, model.hidden_size, model.moe.moe_intermediate_size}, range) {
  if (model.moe.router.pool.maximum > 0) pools_.emplace(model.moe.router.pool, name);
  if (model.moe.num_shared_experts > 0)
    shared_experts_.emplace(parameters, name + ".shared_experts", model.hidden_size,
                            model.moe.num_shared_experts * model.moe.moe_intermediate_size, range,
                            Mlp::on_token_shards());
}

Moe::Result Moe::forward(Tape& tape, const Variable& residual, const ModelInput& input) const {
  Communicator& tensor = parallelism_.tensor();
  const Variable x = parallelism_.enter_shard(tape, residual);
  ModelInput shard = shard_of(input, tensor.rank(), tensor.size());
  std::optional<ProfilePurpose> purpose(std::in_place, "router");
  if (pools_) shard.pools = pools_->of(shard, tensor);
  Routing routing = router_->route(tape, x, shard);
  if (capacity_factor_ > 0) routing = limit_to_capacity(routing, shard, capacity_factor_, tensor);
  if (input.keep_probabilities) routing.statistics.probabilities = routing.probabilities;

  purpose.emplace("permutation");
  const FinishDispatch finish = dispatcher_->begin(tape, x, routing);
  std::optional<Variable> shared;  // computed while the tokens travel
  if (shared_experts_) {
    const ProfilePurpose of_shared("shared_experts");
    shared = shared_experts_->forward(tape, x);
  }
  Variable y = finish([this](Tape& inner, const Variable& rows, const RowOffsets& offsets) {
    const ProfilePurpose of_experts("experts");
    return experts_.forward(inner, rows, offsets);
  });
  if (shared) y = add(tape, y, *shared);
  return {parallelism_.leave_shard(tape, y), routing.statistics};
}

}  // namespace conclave
