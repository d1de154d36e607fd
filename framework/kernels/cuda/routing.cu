#include "framework/kernels/check_route.h"
#include "framework/kernels/cuda/routing.cuh"

#include "framework/kernels/cuda/device_kernels.h"
#include "framework/kernels/cuda/elementwise.cuh"

namespace conclave::DIALECT {
namespace {

/// Calls function(std::integral_constant) with how many experts a lane holds.
template <class Function>
void with_experts_per_lane(std::int64_t experts, std::int64_t top_k, Function&& function) {
  check(experts <= 512 && top_k <= warp_size, Fault::request, "route: a GPU routes to at most ", warp_size,
        " of at most 512 experts, model.moe.num_experts_per_tok ", top_k, " of ", experts, " came");
  if (experts <= 32) return function(std::integral_constant<int, 1>{});
  if (experts <= 128) return function(std::integral_constant<int, 4>{});
  function(std::integral_constant<int, 16>{});
}

RouteChoice choice_of(const RouteRule& rule) {
  const bool sigmoid = rule.score == RouteRule::Score::sigmoid, biased = rule.selection_bias.defined();
  return {.sigmoid = sigmoid,
          .renormalise = rule.renormalise,
          .by_score = biased || (sigmoid && rule.groups > 1),
          .scale = static_cast<float>(rule.scale),
          .groups = rule.groups,
          .chosen_groups = rule.chosen_groups,
          .bias = biased ? rule.selection_bias.data<double>() : nullptr,
          .given = rule.choice == RouteRule::Choice::given};
}

void route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule, const RouteResult& result) {
  const std::int64_t count = logits.dim(0), experts = logits.dim(1), top_k = result.experts.dim(1);
  const std::int64_t sequences = result.counts.dim(0), length = result.length, shift = result.first_token;
  check_route(logits, tokens, rule, result);
  Device& device = logits.device();
  void* stream = device.stream();
  const RouteSizes sizes{count, experts, top_k, length, shift, blocks_for(length, route_chunk)};
  const std::int64_t blocks = sequences * sizes.chunks;
  const Tensor of_chunk = Tensor::empty({blocks, experts + 1}, DType::float64, device);
  result.counts.fill_zero();
  const RouteOutput output{result.experts.data<std::int32_t>(), result.weights.data<float>(),
                           result.probabilities.data<float>(),  result.log_sum_exp.data<float>(),
                           result.counts.data<std::int64_t>(),  of_chunk.data<double>()};
  with_experts_per_lane(experts, top_k, [&](auto per_lane) {
    launch({.blocks = blocks, .stream = stream}, route_kernel<per_lane()>, sizes, choice_of(rule),
           check_float32("route", logits), tokens.data<std::int32_t>(), output);
  });
  launch({.blocks = blocks_for(sequences * experts, block_threads), .stream = stream}, route_sums_kernel,
         of_chunk.data<double>(), sequences, sizes.chunks, experts, result.probability_sums.data<double>());
  launch({.blocks = 1, .stream = stream}, sum_kernel, of_chunk.data<double>() + experts, blocks, experts + 1,
         false, result.z_sum.data<double>());
}

void route_backward(const RouteResult& result, const RouteRule& rule, const Tensor& logits,
                    const Tensor& dweights, const Tensor& dprobability_sums, const Tensor& dz_sum,
                    const Tensor& dlogits) {
  const std::int64_t count = dlogits.dim(0), experts = dlogits.dim(1), top_k = result.experts.dim(1);
  const RouteSizes sizes{count, experts, top_k, result.length, result.first_token, 0};
  check_float32("route_backward", dlogits);
  const RouteGradients gradients{.experts = result.experts.data<std::int32_t>(),
                                 .weights = result.weights.data<float>(),
                                 .probabilities = result.probabilities.data<float>(),
                                 .log_sum_exp = result.log_sum_exp.data<float>(),
                                 .logits = logits.defined() ? logits.data<float>() : nullptr,
                                 .dweights = dweights.data<float>(),
                                 .dprobability_sums = dprobability_sums.data<double>(),
                                 .dz_sum = dz_sum.data<double>(),
                                 .dlogits = dlogits.data<float>()};
  with_experts_per_lane(experts, top_k, [&](auto per_lane) {
    launch(warp_for_each(count, dlogits.device().stream()), route_backward_kernel<per_lane()>, sizes,
           choice_of(rule), gradients);
  });
}

}  // namespace

void put_routing(Kernels& kernels) {
  kernels.route = route;
  kernels.route_backward = route_backward;
}

}  // namespace conclave::DIALECT
