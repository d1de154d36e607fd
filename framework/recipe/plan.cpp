#include "framework/recipe/plan.h"

#include <algorithm>

#include "framework/recipe/model_size.h"

namespace conclave {
namespace {

double real(std::int64_t number) {
  return static_cast<double>(number);
}

double element_bytes(const Recipe& recipe) {
  return recipe.training.precision == "fp64" ? 8.0 : 4.0;
}

bool shards_sequence(const ParallelRecipe& p) {
  return p.sequence && p.tensor > 1;
}

/// Elements in the flat buffers, with the gap behind (ParameterSet::room_of).
double room_of(const ParameterPlan& parameter) {
  const std::int64_t unit = 16 * parameter.replicas;
  return real(parameter.count) * real((parameter.elements + unit - 1) / unit * unit);
}

/// Numbers that a rank keeps until backward, of one block. `kept` is what stays without recomputation.
struct BlockNumbers {
  double kept = 0;
  double peak = 0;  // while it is computed: more than kept where dispatch goes in rounds
};

/// Per row of the residual stream (a micro-batch's tokens, over tensor ranks with `sequence`): the block's
/// input and its norm, attention's output, the MLP's input, its norm and its output.
/// Per token of the micro-batch, over tensor ranks: q and k before and after their norm and rotation, v, the
/// heads' output; a dense MLP's gate, up and product. With `sequence` the rows gathered for attention and for
/// a dense MLP.
/// Per token of the shard: router logits and probabilities, the shared experts' gate, up and product, and the
/// answers that came back for each assignment (from each expert_tensor rank).
/// Per row of experts: input, output, and this rank's columns of gate, up and product. Rows beyond
/// dispatch_rows come in rounds that keep nothing.
BlockNumbers block_numbers(const Recipe& recipe, const LayoutPlan& layout, bool moe, double expert_rows) {
  const ModelRecipe& m = recipe.model;
  const ParallelRecipe& p = recipe.parallel;
  const double hidden = real(m.hidden_size), head = real(m.head_dim), cut = real(p.tensor);
  const double query = real(m.num_attention_heads) * head, key = real(m.num_key_value_heads) * head;
  const double tokens = real(layout.tokens_per_micro_batch), shard = real(layout.tokens_per_shard);
  const bool sharded = shards_sequence(p);
  double kept = (sharded ? shard : tokens) * 6 * hidden + tokens * (3 * query + 3 * key) / cut;
  if (sharded) kept += tokens * hidden * (moe ? 1 : 2);
  if (!moe) {
    kept += tokens * 3 * real(m.intermediate_size) / cut;
    return {kept, kept};
  }
  const double width = real(m.moe.moe_intermediate_size);
  kept += shard * (2 * real(m.moe.num_experts) + 3 * real(m.moe.num_shared_experts) * width);
  double per_row = 2 * hidden + 3 * width / real(p.expert_tensor), returned = 0;
  if (p.expert * p.expert_tensor > 1 && p.dispatcher == "all_to_all") {
    // The experts' outputs leave for the tokens' ranks and are kept there.
    per_row -= hidden;
    returned = shard * real(m.moe.num_experts_per_tok * p.expert_tensor) * hidden;
    if (p.dispatch_rows > 0 && expert_rows > real(p.dispatch_rows))
      return {kept, kept + real(p.dispatch_rows) * per_row + returned};
  }
  kept += expert_rows * per_row + returned;
  return {kept, kept};
}

double activations(const Recipe& recipe, const LayoutPlan& layout, double expert_rows) {
  const ModelRecipe& m = recipe.model;
  const double moe_layers = real(count_moe_layers(m)), dense_layers = real(m.num_hidden_layers) - moe_layers;
  const BlockNumbers moe = moe_layers > 0 ? block_numbers(recipe, layout, true, expert_rows) : BlockNumbers{};
  const BlockNumbers dense = dense_layers > 0 ? block_numbers(recipe, layout, false, 0) : BlockNumbers{};
  const double tokens = real(layout.tokens_per_micro_batch), hidden = real(m.hidden_size);
  const double residual = shards_sequence(recipe.parallel) ? real(layout.tokens_per_shard) : tokens;
  // Kept by all blocks (only their inputs under recomputation, and one whole block), then backward's
  // gradients inside one block, and around the LM head its input, the gradient of it and one chunk of logits
  // (512 rows, autograd/ops/vocabulary.cpp).
  const double largest = std::max(moe.peak, dense.peak);
  const double kept =
      recipe.training.recompute == "block"
          ? real(m.num_hidden_layers) * residual * hidden + largest
          : moe_layers * moe.kept + dense_layers * dense.kept + std::max(moe.peak - moe.kept, 0.0);
  const double logits = std::min(512.0, tokens) * real(m.vocab_size / recipe.parallel.tensor);
  return (kept + largest + residual * hidden + 2 * tokens * hidden + logits) * element_bytes(recipe);
}

/// How often a step's blocks run forward per micro-batch.
struct ForwardRuns {
  double counting = 0;   // 1 where the estimator `exact` counts before the step
  double computing = 1;  // 2 under recomputation
};

/// Terms of the balance loss by what they ask of the network (layers/balance_loss.cpp). All count as active.
struct BalanceNeeds {
  bool pass = false;             // counts of the whole step ahead
  bool micro_steps = false;      // counts of all ranks, micro-batch by micro-batch
  bool sequences = false;        // of tensor ranks, for each sequence
  bool micro_batch = false;      // of tensor ranks, for the micro-batch
  std::int64_t wide_groups = 0;  // groups that micro-batches do not hold whole, counted ahead
};

BalanceNeeds balance_needs(const Recipe& recipe) {
  BalanceNeeds needs;
  if (count_moe_layers(recipe.model) == 0) return needs;
  for (const BalanceRecipe& term : recipe.model.moe.balance) {
    if (term.coefficient == 0) continue;
    const bool global = term.scope == "global_batch";
    const bool group = term.scope == "group" && term.balance_batch_size > 0;
    const bool wide = group && recipe.training.micro_batch_size % term.balance_batch_size != 0;
    needs.pass |= wide || (global && term.estimator == "exact");
    needs.micro_steps |= term.scope == "data_parallel" ||
                         (global && (term.estimator == "running" || term.estimator == "warm"));
    needs.sequences |= term.scope == "sequence" || (group && !wide);
    needs.micro_batch |= term.scope == "micro_batch";
    if (wide)
      needs.wide_groups +=
          (recipe.training.global_batch_size + term.balance_batch_size - 1) / term.balance_batch_size;
  }
  return needs;
}

ForwardRuns forward_runs(const Recipe& recipe) {
  return {balance_needs(recipe).pass ? 1.0 : 0.0, recipe.training.recompute == "block" ? 2.0 : 1.0};
}

/// Of tensor parallelism, per step. X = tokens of a micro-batch * hidden, t tensor ranks:
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
  const double x = real(layout.tokens_per_micro_batch) * real(m.hidden_size) * element_bytes(recipe);
  const bool sequence = shards_sequence(recipe.parallel);
  const double enter_forward = sequence ? x / t : 0, enter_backward = sequence ? x * (t - 1) / t : x;
  const double leave_forward = enter_backward, leave_backward = enter_forward;
  const double shard = sequence ? 0 : x / t;  // leave_shard forward, enter_shard backward
  const double moe_layers = real(count_moe_layers(m));
  const double regions = 2 * real(m.num_hidden_layers) - moe_layers;
  const ForwardRuns runs = forward_runs(recipe);
  const double blocks =
      (runs.counting + runs.computing) * (regions * (enter_forward + leave_forward) + moe_layers * shard) +
      regions * (enter_backward + leave_backward) + moe_layers * shard;
  const double embedding = (runs.counting + 1) * leave_forward + leave_backward;
  const double head = enter_forward + enter_backward + real(layout.tokens_per_micro_batch) * 3 * 8;
  return real(layout.micro_steps) * (blocks + embedding + head);
}

/// Of the exchange with experts, per step. S tokens of the shard, k experts per token, G ranks of the group
/// (e expert x u expert_tensor), h hidden:
///   all_to_all  S k u rows of h, of which (G - 1) / G leave when the load is even: forward to the experts,
///   their
///               gradient back in backward (both dispatch); the answers and their gradient (both combine).
///               Before them the int64 counts of the receivers' experts, (G - 1) num_experts / e; with
///               dispatch_rows first G int64 of an all-gather. Beyond dispatch_rows the exchange goes in
///               rounds, each with its counts and once more forward, in backward.
///   all_gather  forward: S (h numbers, k weights, k int32 ids); backward: reduce-scatter of (G - 1) S (h +
///   k).
///               Combine: reduce-scatter of (G - 1) S h; backward: all-gather of S h.
void add_dispatch_bytes(const Recipe& recipe, const LayoutPlan& layout, NetworkPlan& plan) {
  const ParallelRecipe& p = recipe.parallel;
  const ModelRecipe& m = recipe.model;
  const double group = real(p.expert * p.expert_tensor), moe_layers = real(count_moe_layers(m));
  if (group == 1 || moe_layers == 0) return;
  const double bytes = element_bytes(recipe), shard = real(layout.tokens_per_shard);
  const double top_k = real(m.moe.num_experts_per_tok);
  const ForwardRuns runs = forward_runs(recipe);
  const double forward = runs.counting + runs.computing;
  const double times = real(layout.micro_steps) * moe_layers;
  if (p.dispatcher == "all_gather") {
    const double row = real(m.hidden_size) * bytes;
    plan.dispatch =
        times * shard * (forward * (row + top_k * (bytes + 4)) + (group - 1) * (row + top_k * bytes));
    plan.combine = times * shard * (forward * (group - 1) * row + row);
    return;
  }
  const double leaving =
      shard * top_k * real(p.expert_tensor) * (group - 1) / group * real(m.hidden_size) * bytes;
  const double counts = (group - 1) * real(m.moe.num_experts / p.expert) * 8;
  double rounds = 1, exchanges = forward;
  if (p.dispatch_rows > 0) {
    rounds = real((layout.expected_expert_rows + p.dispatch_rows - 1) / p.dispatch_rows);
    if (rounds > 1) exchanges += 1;
    plan.dispatch = times * forward * group * 8;
  }
  plan.dispatch += times * (exchanges * (leaving + rounds * counts) + leaving);
  plan.combine = times * (exchanges + 1) * leaving;
}

/// All-reduces per step. Over data ranks: real and target tokens, 2 int64. Over all ranks: 4 losses and the
/// norm, float64; expert counts of all layers, int64, per micro-batch where a term follows them as they pass,
/// else once; where a pass counts ahead, those of the step and of each wide group; probabilities of all
/// experts and two numbers per layer, float64, and with a capacity the dropped. Over tensor ranks, per
/// micro-batch: counts of each sequence, or of all; with a capacity in each forward pass of a layer, the id
/// and float64 p of every choice, gathered.
double statistics_bytes(const Recipe& recipe, const LayoutPlan& layout) {
  double bytes = 0;
  if (layout.data_ranks > 1) bytes += 2 * 8;
  if (layout.ranks > 1) bytes += (4 + 1) * 8;
  const double layers = real(count_moe_layers(recipe.model)), steps = real(layout.micro_steps);
  if (layers == 0) return bytes;
  const double counts = layers * real(recipe.model.moe.num_experts) * 8;
  const BalanceNeeds needs = balance_needs(recipe);
  if (layout.ranks > 1) {
    bytes += (needs.micro_steps ? steps : 1.0) * counts + counts + 2 * layers * 8;
    if (needs.pass) bytes += counts * (1 + real(needs.wide_groups));
    if (recipe.model.moe.capacity_factor > 0) bytes += layers * 8;
  }
  if (recipe.parallel.tensor > 1 && recipe.model.moe.capacity_factor > 0) {
    const ForwardRuns runs = forward_runs(recipe);
    bytes += (runs.counting + runs.computing) * steps * layers * real(layout.tokens_per_shard) *
             real(recipe.model.moe.num_experts_per_tok) * (4 + 8);
  }
  if (recipe.parallel.tensor > 1 && needs.sequences)
    bytes += steps * counts * real(recipe.training.micro_batch_size);
  else if (recipe.parallel.tensor > 1 && needs.micro_batch)
    bytes += steps * counts;
  return bytes;
}

}  // namespace

LayoutPlan plan_layout(const Recipe& recipe, int ranks) {
  const std::int64_t rows = recipe.training.micro_batch_size, length = recipe.data.sequence_length;
  const ParallelRecipe& p = recipe.parallel;
  const MoeRecipe& moe = recipe.model.moe;
  const std::int64_t group = p.expert * p.expert_tensor;
  LayoutPlan plan;
  plan.ranks = ranks;
  plan.data_ranks = ranks / p.tensor;
  plan.expert_data_ranks = ranks / group;
  plan.micro_steps = recipe.training.global_batch_size / (rows * plan.data_ranks);
  plan.tokens_per_step = recipe.training.global_batch_size * length;
  plan.tokens_per_micro_batch = rows * length;
  plan.tokens_per_shard = plan.tokens_per_micro_batch / p.tensor;
  if (count_moe_layers(recipe.model) == 0) return plan;
  // The group's tokens go k ways each, to every expert_tensor rank of an expert. At worst every token chooses
  // as many of one rank's experts as it may.
  plan.expected_expert_rows = plan.tokens_per_shard * moe.num_experts_per_tok * p.expert_tensor;
  plan.worst_expert_rows =
      plan.tokens_per_shard * group * std::min(moe.num_experts_per_tok, moe.num_experts / p.expert);
  return plan;
}

std::vector<ParameterPlan> plan_parameters(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  const ParallelRecipe& p = recipe.parallel;
  const std::int64_t hidden = m.hidden_size, layers = m.num_hidden_layers, moe_layers = count_moe_layers(m);
  // The three kinds of replicas (layers/parallelism.h): of what tensor ranks share out; of what every rank
  // uses on its own tokens or heads; of what expert ranks share out.
  const std::int64_t data = ranks / p.tensor, everybody = ranks,
                     expert_data = ranks / (p.expert * p.expert_tensor);
  const std::int64_t residual = shards_sequence(p) ? everybody : data;
  std::vector<ParameterPlan> plan = {
      {"embedding and LM head", m.tie_word_embeddings ? 1 : 2, m.vocab_size / p.tensor * hidden, data},
      {"query and output projections", 2 * layers, m.num_attention_heads / p.tensor * m.head_dim * hidden,
       data},
      {"key and value projections", 2 * layers, m.num_key_value_heads / p.tensor * m.head_dim * hidden, data},
      {"norms of queries and keys", m.qk_norm ? 2 * layers : 0, m.head_dim, everybody},
      {"norms of the residual stream", 2 * layers + 1, hidden, residual},
      {"dense MLPs", 3 * (layers - moe_layers), m.intermediate_size / p.tensor * hidden, data},
      {"routers", moe_layers, m.moe.num_experts * hidden, everybody},
      {"shared experts", m.moe.num_shared_experts > 0 ? 3 * moe_layers : 0,
       m.moe.num_shared_experts * m.moe.moe_intermediate_size * hidden, everybody},
      {"experts", 3 * moe_layers,
       m.moe.num_experts / p.expert * (m.moe.moe_intermediate_size / p.expert_tensor) * hidden, expert_data},
  };
  std::erase_if(plan, [](const ParameterPlan& parameter) { return parameter.count == 0; });
  return plan;
}

MemoryPlan plan_memory(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const double bytes = element_bytes(recipe);
  MemoryPlan plan;
  for (const ParameterPlan& parameter : plan_parameters(recipe, ranks)) {
    const double room = room_of(parameter) * bytes;
    plan.parameters += room;
    plan.gradients += room;
    // Two moments: of every element, or of an even part of each bucket and a buffer for that part's sum. A
    // gap at the end of a parameter takes no moments; here the rank without gaps counts.
    if (recipe.parallel.zero > 0 && parameter.replicas > 1) {
      plan.moments += 2 * room / real(parameter.replicas);
      plan.reduced_gradients += room / real(parameter.replicas);
    } else {
      plan.moments += 2 * real(parameter.count) * real(parameter.elements) * bytes;
    }
  }
  plan.activations = activations(recipe, layout, real(layout.expected_expert_rows));
  // Just under dispatch_rows all blocks keep their rows; far beyond it one round is there at a time.
  plan.worst_activations = activations(recipe, layout, real(layout.worst_expert_rows));
  if (const std::int64_t bound = recipe.parallel.dispatch_rows; bound > 0)
    plan.worst_activations = std::max(
        plan.worst_activations, activations(recipe, layout, real(std::min(layout.worst_expert_rows, bound))));

  const double tokens = real(layout.tokens_per_micro_batch), rows = real(layout.expected_expert_rows);
  const double cut = real(recipe.parallel.tensor);
  const double vocabulary = real(m.vocab_size) / cut;
  plan.largest_buffers = {
      {"embedding", vocabulary * real(m.hidden_size) * bytes},
      {"LM head", m.tie_word_embeddings ? 0 : vocabulary * real(m.hidden_size) * bytes},
      {"one chunk of logits", std::min(512.0, tokens) * vocabulary * bytes},
      {"hidden layer of the chosen experts, one block",
       rows * real(m.moe.moe_intermediate_size / recipe.parallel.expert_tensor) * bytes},
      {"rows sent to experts, one block", rows * real(m.hidden_size) * bytes},
      {"queries of one block", tokens * real(m.num_attention_heads) / cut * real(m.head_dim) * bytes},
  };
  for (const ParameterPlan& parameter : plan_parameters(recipe, ranks))
    if (parameter.name == "experts")
      plan.largest_buffers.push_back(
          {"one projection of one block's experts", real(parameter.elements) * bytes});
  std::erase_if(plan.largest_buffers, [](const NamedBytes& buffer) { return buffer.bytes == 0; });
  std::stable_sort(plan.largest_buffers.begin(), plan.largest_buffers.end(),
                   [](const NamedBytes& a, const NamedBytes& b) { return a.bytes > b.bytes; });
  return plan;
}

NetworkPlan plan_network(const Recipe& recipe, int ranks) {
  const LayoutPlan layout = plan_layout(recipe, ranks);
  NetworkPlan plan;
  // Per bucket, gaps included: an all-reduce of all of it, or a reduce-scatter of what belongs to others and
  // an all-gather of this rank's new values. No frozen parameter is assumed.
  for (const ParameterPlan& parameter : plan_parameters(recipe, ranks)) {
    if (parameter.replicas == 1) continue;
    const double room = room_of(parameter) * element_bytes(recipe), share = room / real(parameter.replicas);
    plan.gradients += recipe.parallel.zero > 0 ? room - share : room;
    plan.parameters += recipe.parallel.zero > 0 ? share : 0;
  }
  plan.activations = activation_bytes(recipe, layout);
  add_dispatch_bytes(recipe, layout, plan);
  plan.statistics = statistics_bytes(recipe, layout);
  return plan;
}

}  // namespace conclave
