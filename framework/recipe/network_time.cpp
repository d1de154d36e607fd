#include "framework/recipe/network_time.h"

#include <algorithm>

#include "framework/recipe/model_size.h"
#include "framework/recipe/plan_parts.h"

namespace conclave {

NetworkTime::NetworkTime(const Recipe& recipe, int ranks, const MachineModel& machine)
    : recipe_(recipe),
      machine_(machine),
      layout_(plan_layout(recipe, ranks)),
      ranks_(ranks),
      time_(machine, ranks),
      tensor_{recipe.parallel.tensor, 1},
      experts_{expert_group(recipe.parallel), 1} {}

double NetworkTime::blocks() const {
  return real(layout_.micro_steps) * real(count_moe_layers(recipe_.model));
}

double NetworkTime::exchanged_rows() const {
  return even_rows(recipe_, layout_).sent;
}

template <class Action>
void NetworkTime::for_each_group(const Action& action) const {
  struct Kind {
    RankGroup group;
    double bytes = 0, largest = 0;
  };
  Kind kinds[] = {
      {{ranks_, 1}}, {{ranks_ / tensor_.ranks, tensor_.ranks}}, {{ranks_ / experts_.ranks, experts_.ranks}}};
  for (const ParameterPlan& parameter : plan_parameters(recipe_, static_cast<int>(ranks_))) {
    Kind& kind = kinds[parameter.name == "experts" ? 2 : parameter.replicas == ranks_ ? 0 : 1];
    const double bytes = room_of(parameter) * sum_bytes(recipe_);
    kind.bytes += bytes;
    kind.largest = std::max(kind.largest, bytes / real(parameter.count));
  }
  for (const Kind& kind : kinds)
    if (kind.bytes > 0 && kind.group.ranks > 1)
      action(kind.group, kind.bytes, std::min(kind.bytes, std::max(kind.largest, 4.0 * (1 << 20))));
}

NetworkTime::Gradients NetworkTime::gradients() const {
  Gradients all;
  for_each_group([&](RankGroup group, double bytes, double bucket) {
    const double one = reduction(group, bucket);
    all.seconds += bytes / bucket * one;
    all.last = std::max(all.last, one);
  });
  return all;
}

double NetworkTime::parameters() const {
  double seconds = 0;
  if (recipe_.parallel.zero == 0) return 0;
  for_each_group([&](RankGroup group, double bytes, double bucket) {
    seconds += bytes / bucket * time_.all_gather(group, bucket);
  });
  return seconds;
}

double NetworkTime::activations() const {
  if (tensor_.ranks == 1) return 0;
  const ModelRecipe& m = recipe_.model;
  const double numbers = real(layout_.tokens_per_micro_batch) * real(m.hidden_size);
  const double x = numbers * element_bytes(recipe_), sums = numbers * sum_bytes(recipe_);
  const bool sequence = shards_sequence(recipe_.parallel);
  const double gather = time_.all_gather(tensor_, x);
  const double sum = sequence ? time_.reduce_scatter(tensor_, sums) : time_.all_reduce(tensor_, sums);
  const double entering = sequence ? gather : 0, shard = sequence ? 0 : gather;
  const double moe_layers = real(count_moe_layers(m)), regions = 2 * real(m.num_hidden_layers) - moe_layers;
  const ForwardRuns runs = forward_runs(recipe_, layout_);
  const double once = regions * (entering + sum) + moe_layers * shard;
  const double embedding = (runs.counting + 1) * sum + entering;
  const double statistics = time_.all_gather(
      tensor_, real(tensor_.ranks) * real(layout_.tokens_per_micro_batch) * 3 * sizeof(double));
  return real(layout_.micro_steps) *
         ((runs.counting + runs.computing + 1) * once + embedding + entering + sum + statistics);
}

double NetworkTime::dispatch() const {
  if (experts_.ranks == 1 || count_moe_layers(recipe_.model) == 0) return 0;
  const MoeRecipe& moe = recipe_.model.moe;
  const double row = real(recipe_.model.hidden_size) * element_bytes(recipe_),
               sum = real(recipe_.model.hidden_size) * sum_bytes(recipe_);
  const ForwardRuns runs = forward_runs(recipe_, layout_);
  const double forward = runs.counting + runs.computing, times = blocks();
  const double shard = real(layout_.tokens_per_shard), top_k = real(moe.num_experts_per_tok);
  if (exchanges_rows(recipe_.parallel)) {
    const double counts = real(experts_.ranks) * real(moe.num_experts / recipe_.parallel.expert) * 8;
    return times * (forward * time_.all_to_all(experts_, counts) +
                    (forward + 1) * time_.all_to_all(experts_, exchanged_rows() * row));
  }
  const double everybody = real(experts_.ranks) * shard;
  return times * (forward * (time_.all_gather(experts_, everybody * row) +
                             time_.all_gather(experts_, everybody * top_k * sum_bytes(recipe_)) +
                             time_.all_gather(experts_, everybody * top_k * 4)) +
                  time_.reduce_scatter(experts_, everybody * sum) +
                  time_.reduce_scatter(experts_, everybody * top_k * sum_bytes(recipe_)));
}

double NetworkTime::combine() const {
  if (experts_.ranks == 1 || count_moe_layers(recipe_.model) == 0) return 0;
  const double row = real(recipe_.model.hidden_size) * element_bytes(recipe_),
               sum = real(recipe_.model.hidden_size) * sum_bytes(recipe_);
  const ForwardRuns runs = forward_runs(recipe_, layout_);
  const double forward = runs.counting + runs.computing;
  if (exchanges_rows(recipe_.parallel))
    return blocks() * (forward + 1) * time_.all_to_all(experts_, exchanged_rows() * row);
  const double everybody = real(experts_.ranks) * real(layout_.tokens_per_shard);
  return blocks() * (forward * time_.reduce_scatter(experts_, everybody * sum) +
                     time_.all_gather(experts_, everybody * row));
}

double NetworkTime::statistics() const {
  const ForwardRuns runs = forward_runs(recipe_, layout_);
  const double calls = 4 + real(layout_.micro_steps),
               joins = pool_bytes(recipe_) > 0 ? (runs.counting + runs.computing) * blocks() : 0;
  const double bytes =
      plan_network(recipe_, static_cast<int>(ranks_)).statistics - joins * pool_bytes(recipe_);
  return calls * time_.all_reduce({ranks_, 1}, bytes / calls) +
         joins * time_.all_reduce(tensor_, pool_bytes(recipe_));
}

double NetworkTime::reduction(RankGroup group, double bytes) const {
  const bool tree = machine_.nonblocking_all_reduce == "tree";
  if (recipe_.parallel.zero == 0)
    return tree ? time_.all_reduce_by_tree(group, bytes) : time_.all_reduce(group, bytes);
  return time_.reduce_scatter(group, bytes);
}

}  // namespace conclave
