#include "layers/moe/moe.h"

#include "framework/device/profile.h"
#include "layers/moe/methods.h"

namespace conclave {

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
      router_(std::move(router)),
      dispatcher_(make_dispatcher(model.moe, parallelism)),
      experts_(parameters, name + ".experts",
               {model.moe.num_experts, model.hidden_size, model.moe.moe_intermediate_size}, range) {
  for (const Method& method : methods())
    if (method.limit != nullptr)
      if (auto limit = method.limit(model.moe)) limits_.push_back(std::move(limit));
  if (model.moe.num_shared_experts > 0)
    shared_experts_.emplace(parameters, name + ".shared_experts", model.hidden_size,
                            model.moe.num_shared_experts * model.moe.moe_intermediate_size, range,
                            Mlp::on_token_shards());
}

FeedForward::Result Moe::forward(Tape& tape, const Variable& residual, const ModelInput& input) const {
  Communicator& tensor = parallelism_.tensor();
  const Variable x = parallelism_.enter_shard(tape, residual);
  const ModelInput shard = shard_of(input, tensor.rank(), tensor.size());
  const RouterInput seen{x, shard, tensor};
  std::optional<ProfilePurpose> purpose(std::in_place, "router");
  Routing routing = router_->route(tape, seen);
  for (const auto& limit : limits_) routing = limit->limit(routing, seen);
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
  return {parallelism_.leave_shard(tape, y), {routing.statistics}};
}

FeedForwards::FeedForwards(const ModelRecipe& model, Device& device, RouterMaker router)
    : model_(model), router_(std::move(router)), states_(make_states(model, device)) {}

std::unique_ptr<FeedForward> FeedForwards::operator()(ParameterSet& parameters,
                                                      const BlockPlace& place) const {
  if (is_dense_block(model_, place.block))
    return std::make_unique<DenseMlp>(parameters, place, model_.hidden_size, model_.intermediate_size);
  std::int64_t layer = 0;  // of those with experts
  for (std::int64_t block = 0; block < place.block; ++block) layer += is_dense_block(model_, block) ? 0 : 1;
  return std::make_unique<Moe>(parameters, place.name, model_, place.range, place.parallelism,
                               router_(parameters, place.name, model_, states_.of_layer(layer)));
}

}  // namespace conclave
