// Bytes on the network of a rank and step, by purpose: what parallel/communicator.h counts.
#include <algorithm>

#include "framework/recipe/model_size.h"
#include "framework/recipe/plan_parts.h"

namespace conclave {
namespace {

/// What the balance terms and the selection bias ask of the network (layers/balance_loss.cpp,
/// layers/expert_counts.cpp). All count as active.
struct BalanceNeeds {
  bool pass = false;             // a forward pass over all micro-batches ahead of the step
  bool all_ranks = false;        // counts of all ranks, micro-batch by micro-batch
  bool sequences = false;        // of tensor ranks, for each sequence
  bool micro_batch = false;      // of tensor ranks, for the micro-batch
  std::int64_t sets_ahead = 0;   // groups and samples that reach beyond a micro-step, counted in the pass
  std::int64_t sets_within = 0;  // those that do not, counted in each micro-step; of one micro-step
  bool signs = false;            // of the selection bias, beside the sums of the report
};

BalanceNeeds balance_needs(const Recipe& recipe, const LayoutPlan& layout) {
  BalanceNeeds needs;
  if (count_moe_layers(recipe.model) == 0) return needs;
  const std::int64_t micro = recipe.training.micro_batch_size, together = micro * layout.data_ranks;
  const bool single = layout.micro_steps == 1;
  const auto need = [&](const std::string& scope) {
    needs.sequences |= scope == "sequence";
    needs.micro_batch |= scope == "micro_batch";
    needs.all_ranks |= scope == "data_parallel";
  };
  const auto need_sets = [&](std::int64_t of_step, bool within_micro_step) {
    if (within_micro_step)
      needs.sets_within += of_step / layout.micro_steps;
    else
      needs.sets_ahead += of_step;
    needs.pass |= !within_micro_step;
  };
  for (const BalanceRecipe& term : recipe.model.moe.balance) {
    if (term.coefficient == 0) continue;
    need(term.scope);
    if (term.scope == "global_batch") {
      const bool exact = term.estimator == "exact";
      needs.pass |= exact && !single;
      needs.all_ranks |= (exact && single) || term.estimator == "running" || term.estimator == "warm";
    } else if (term.scope == "shuffle") {
      need_sets(layout.micro_steps * layout.data_ranks, single);
    } else if (term.scope == "group" && micro % term.balance_batch_size == 0) {
      needs.sequences = true;
    } else if (term.scope == "group") {
      need_sets(recipe.training.global_batch_size / term.balance_batch_size,
                single || together % term.balance_batch_size == 0);
    }
  }
  if (const SelectionBiasRecipe& bias = recipe.model.moe.router.bias; bias.rate > 0) {
    need(bias.scope);
    needs.signs = bias.scope != "global_batch";
  }
  return needs;
}

}  // namespace

ForwardRuns forward_runs(const Recipe& recipe, const LayoutPlan& layout) {
  return {balance_needs(recipe, layout).pass ? 1.0 : 0.0, recipe.training.recompute == "block" ? 2.0 : 1.0};
}

namespace {

/// Of tensor parallelism, per step. X = tokens of a micro-batch * hidden, t tensor ranks; what is summed
/// travels in sum_type:
///                  forward                                   backward
///   enter_tensor   sequence: all-gather X / t                all-reduce X, or reduce-scatter X (t - 1) / t
///   leave_tensor   all-reduce X, or rs. X (t - 1) / t        sequence: all-gather X / t
///   enter_shard                                              all-gather X / t, nothing with sequence
///   leave_shard    all-gather X / t, nothing with sequence
/// A block enters and leaves the tensor region once for attention and once for a dense MLP, and the shard
/// once for its experts; the embedding leaves and the LM head enters once. Cross-entropy gathers 3 float64
/// per token.
double activation_bytes(const Recipe& recipe, const LayoutPlan& layout) {
  const double t = real(recipe.parallel.tensor);
  if (t == 1) return 0;
  const ModelRecipe& m = recipe.model;
  const double numbers = real(layout.tokens_per_micro_batch) * real(m.hidden_size);
  const double x = numbers * element_bytes(recipe), sum = numbers * sum_bytes(recipe);
  const bool sequence = shards_sequence(recipe.parallel);
  const double enter_forward = sequence ? x / t : 0, enter_backward = sequence ? sum * (t - 1) / t : sum;
  const double leave_forward = enter_backward, leave_backward = enter_forward;
  const double shard = sequence ? 0 : x / t;  // leave_shard forward, enter_shard backward
  const double moe_layers = real(count_moe_layers(m));
  const double regions = 2 * real(m.num_hidden_layers) - moe_layers;
  const ForwardRuns runs = forward_runs(recipe, layout);
  const double blocks =
      (runs.counting + runs.computing) * (regions * (enter_forward + leave_forward) + moe_layers * shard) +
      regions * (enter_backward + leave_backward) + moe_layers * shard;
  const double embedding = (runs.counting + 1) * leave_forward + leave_backward;
  const double head = enter_forward + enter_backward + real(layout.tokens_per_micro_batch) * 3 * 8;
  return real(layout.micro_steps) * (blocks + embedding + head);
}

/// Of the exchange with experts, per step, where every rank sees the same rows. S tokens of the shard, k
/// experts per token, G ranks of the group (e expert x u expert_tensor), h hidden:
///   all_to_all  exchange_bytes() with (G - 1) / G of the S k u rows leaving.
///   all_gather  forward: S (h numbers, k weights, k int32 ids); backward: reduce-scatter of
///               (G - 1) S (h + k). Combine: reduce-scatter of (G - 1) S h; backward: all-gather of S h.
void add_dispatch_bytes(const Recipe& recipe, const LayoutPlan& layout, NetworkPlan& plan) {
  const ParallelRecipe& p = recipe.parallel;
  const ModelRecipe& m = recipe.model;
  const double group = real(expert_group(p)), moe_layers = real(count_moe_layers(m));
  if (group == 1 || moe_layers == 0) return;
  const double times = real(layout.micro_steps) * moe_layers;
  if (exchanges_rows(p)) {
    const ExchangeBytes of_block = exchange_bytes(recipe, layout, even_rows(recipe, layout));
    plan.dispatch = times * of_block.dispatch;
    plan.combine = times * of_block.combine;
    return;
  }
  const double sums = sum_bytes(recipe), shard = real(layout.tokens_per_shard);
  const double top_k = real(m.moe.num_experts_per_tok), row = real(m.hidden_size) * element_bytes(recipe),
               row_of_sums = real(m.hidden_size) * sums;
  const ForwardRuns runs = forward_runs(recipe, layout);
  const double forward = runs.counting + runs.computing;
  plan.dispatch =
      times * shard * (forward * (row + top_k * (sums + 4)) + (group - 1) * (row_of_sums + top_k * sums));
  plan.combine = times * shard * (forward * (group - 1) * row_of_sums + row);
}

/// All-reduces per step. Over data ranks: real and target tokens, 2 int64. Over all ranks: 3 losses, a
/// request to stop, how far a save is, and the norm, float64; expert counts of all layers, int64, per
/// micro-batch where a term follows them as they pass, else once; those of groups and samples; where a pass
/// counts ahead, those of the step; probabilities of all experts and two numbers per layer, float64, with a
/// capacity the dropped, with a selection bias of narrow scope its signs. Over tensor ranks, per micro-batch:
/// counts of each sequence, or of all; in each forward pass of a layer with a capacity the id and float64 p
/// of every choice, gathered, and with pools pool_bytes().
double statistics_bytes(const Recipe& recipe, const LayoutPlan& layout) {
  double bytes = 0;
  if (layout.data_ranks > 1) bytes += 2 * 8;
  if (layout.ranks > 1) bytes += (5 + 1) * 8;
  const MoeRecipe& moe = recipe.model.moe;
  const double layers = real(count_moe_layers(recipe.model)), steps = real(layout.micro_steps);
  if (layers == 0) return bytes;
  const double counts = layers * real(moe.num_experts) * 8;
  const BalanceNeeds needs = balance_needs(recipe, layout);
  if (layout.ranks > 1) {
    bytes += (needs.all_ranks ? steps : 1.0) * counts + counts + 2 * layers * 8;
    bytes += steps * real(needs.sets_within) * counts;
    if (needs.pass) bytes += counts * (1 + real(needs.sets_ahead));
    if (needs.signs) bytes += counts + 8;
    if (moe.capacity_factor > 0) bytes += layers * 8;
  }
  if (recipe.parallel.tensor == 1) return bytes;
  const ForwardRuns runs = forward_runs(recipe, layout);
  const double passes = (runs.counting + runs.computing) * steps * layers;
  if (moe.capacity_factor > 0)
    bytes += passes * real(layout.tokens_per_shard) * real(moe.num_experts_per_tok) * (4 + 8);
  bytes += passes * pool_bytes(recipe);
  if (needs.sequences)
    bytes += steps * counts * real(recipe.training.micro_batch_size);
  else if (needs.micro_batch)
    bytes += steps * counts;
  return bytes;
}

}  // namespace

ExchangeBytes exchange_bytes(const Recipe& recipe, const LayoutPlan& layout, const ExchangeRows& rows) {
  const ParallelRecipe& p = recipe.parallel;
  const double row = real(recipe.model.hidden_size) * element_bytes(recipe), group = real(expert_group(p));
  const double counts = (group - 1) * real(recipe.model.moe.num_experts / p.expert) * 8;
  const ForwardRuns runs = forward_runs(recipe, layout);
  const double forward = runs.counting + runs.computing;
  const double rounds = static_cast<double>(rows.rounds.size()), exchanges = forward + (rounds > 1 ? 1 : 0);
  const double numbering = p.dispatch_rows > 0 ? forward * group * 8 : 0;
  return {.dispatch = numbering + exchanges * (rows.leaving * row + rounds * counts) + rows.arriving * row,
          .combine = exchanges * rows.arriving * row + rows.leaving * row};
}

NetworkPlan plan_network(const Recipe& recipe, int ranks) {
  const LayoutPlan layout = plan_layout(recipe, ranks);
  NetworkPlan plan;
  // Per bucket, gaps included: an all-reduce of all of it, or a reduce-scatter of what belongs to others and
  // an all-gather of this rank's new values. No frozen parameter is assumed.
  for (const ParameterPlan& parameter : plan_parameters(recipe, ranks)) {
    if (parameter.replicas == 1) continue;
    const double room = room_of(parameter) * sum_bytes(recipe), share = room / real(parameter.replicas);
    plan.gradients += recipe.parallel.zero > 0 ? room - share : room;
    plan.parameters += recipe.parallel.zero > 0 ? share : 0;
  }
  plan.activations = activation_bytes(recipe, layout);
  add_dispatch_bytes(recipe, layout, plan);
  plan.statistics = statistics_bytes(recipe, layout);
  return plan;
}

}  // namespace conclave
