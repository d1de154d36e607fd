#include "launch/plan/plan.h"

#include <algorithm>

#include "framework/base/allocation_size.h"
#include "framework/base/error.h"
#include "launch/plan/few_steps.h"
#include "launch/train/model.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

double real(std::int64_t number) {
  return static_cast<double>(number);
}

std::int64_t expert_group(const ParallelRecipe& p) {
  return p.expert * p.expert_tensor;
}

/// The bytes that a buffer of so many takes of the device.
double allocated_bytes(double bytes) {
  constexpr double exact = 1e18;  // beyond, an eighth does not matter
  return bytes > 0 && bytes < exact
             ? real(static_cast<std::int64_t>(allocation_size(static_cast<std::size_t>(bytes))))
             : bytes;
}

/// Activations when the first rank's experts get `most` rows at once, or all that there are.
double crowded_activations(const Recipe& recipe, int ranks, std::int64_t most_rows) {
  const std::int64_t here = recipe.model.moe.num_experts / recipe.parallel.expert;
  // Each rank of the group does as the first one does.
  const std::int64_t most = most_rows / expert_group(recipe.parallel);
  const DryStep step = dry_step_of_few(recipe, ranks, crowded_choice(0, here, most));
  return step.peak - step.states;
}

double worst_activations(const Recipe& recipe, int ranks, double expected) {
  const ParallelRecipe& p = recipe.parallel;
  const LayoutPlan layout = plan_layout(recipe, ranks);
  if (expert_group(p) == 1 || layout.worst_expert_rows == 0) return expected;
  const double all = crowded_activations(recipe, ranks, layout.worst_expert_rows);
  if (p.dispatcher != DispatcherKind::all_to_all || p.dispatch_rows < layout.expected_expert_rows ||
      p.dispatch_rows >= layout.worst_expert_rows)
    return all;
  // Far beyond dispatch_rows one round is there at a time; just under it all blocks keep their rows.
  return std::max(all, crowded_activations(recipe, ranks, p.dispatch_rows));
}

/// The expected sums, largest first.
std::vector<NamedBytes> largest_buffers(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const double tokens = real(layout.tokens_per_micro_batch), rows = real(layout.expected_expert_rows);
  const DType dtype = dtype_of_precision(recipe.training.precision);
  const auto bytes = static_cast<double>(element_bytes(dtype)),
             sums = static_cast<double>(element_bytes(sum_type(dtype)));
  const double cut = real(recipe.parallel.tensor), vocabulary = real(m.vocab_size) / cut;
  const double width = real(m.moe.moe_intermediate_size / recipe.parallel.expert_tensor);
  std::vector<NamedBytes> buffers = {
      {"embedding", vocabulary * real(m.hidden_size) * sums},
      {"LM head", m.tie_word_embeddings ? 0 : vocabulary * real(m.hidden_size) * sums},
      {"one chunk of logits", std::min(512.0, tokens) * vocabulary * sums},
      {"hidden layer of the chosen experts, one block", rows * width * bytes},
      {"rows sent to experts, one block", rows * real(m.hidden_size) * bytes},
      {"queries of one block", tokens * real(m.num_attention_heads) / cut * real(m.head_dim) * bytes},
      {"one projection of one block's experts",
       count_moe_layers(m) == 0
           ? 0
           : real(m.moe.num_experts / recipe.parallel.expert) * width * real(m.hidden_size) * sums},
  };
  std::erase_if(buffers, [](const NamedBytes& buffer) { return buffer.bytes == 0; });
  std::stable_sort(buffers.begin(), buffers.end(),
                   [](const NamedBytes& a, const NamedBytes& b) { return a.bytes > b.bytes; });
  return buffers;
}

}  // namespace

LayoutPlan plan_layout(const Recipe& recipe, int ranks) {
  const std::int64_t rows = recipe.training.micro_batch_size, length = recipe.data.sequence_length;
  const ParallelRecipe& p = recipe.parallel;
  const MoeRecipe& moe = recipe.model.moe;
  LayoutPlan plan;
  plan.ranks = ranks;
  plan.data_ranks = ranks / p.tensor;
  plan.expert_data_ranks = ranks / expert_group(p);
  plan.micro_steps = recipe.training.global_batch_size / (rows * plan.data_ranks);
  plan.tokens_per_step = recipe.training.global_batch_size * length;
  plan.tokens_per_micro_batch = rows * length;
  plan.tokens_per_shard = plan.tokens_per_micro_batch / p.tensor;
  if (count_moe_layers(recipe.model) == 0) return plan;
  // The group's tokens go k ways each, to every expert_tensor rank of an expert. At worst every token chooses
  // as many of one rank's experts as it may.
  plan.expected_expert_rows = plan.tokens_per_shard * moe.num_experts_per_tok * p.expert_tensor;
  plan.worst_expert_rows =
      plan.tokens_per_shard * expert_group(p) * std::min(moe.num_experts_per_tok, moe.num_experts / p.expert);
  return plan;
}

DryStep plan_step(const Recipe& recipe, int ranks) {
  return dry_step_of_few(recipe, ranks, even_choice());
}

MemoryPlan plan_memory(const Recipe& recipe, int ranks, const DryStep& step) {
  MemoryPlan plan;
  plan.parameters = step.parameters;
  plan.rounded_parameters = step.rounded_parameters;
  plan.gradients = step.gradients;
  plan.moments = step.moments;
  plan.pieces = step.tables;
  plan.reduced_gradients = step.reduced_gradients;
  plan.router_states = step.router_states;
  // Each of these is one buffer, the moments two; what a reduce-scatter brings is a buffer for each bucket.
  plan.rounding = allocated_bytes(plan.parameters) - plan.parameters + allocated_bytes(plan.gradients) -
                  plan.gradients + 2 * allocated_bytes(plan.moments / 2) - plan.moments +
                  allocated_bytes(plan.rounded_parameters) - plan.rounded_parameters;
  plan.snapshot = step.snapshot;
  plan.activations = step.peak - step.states;
  plan.worst_activations = worst_activations(recipe, ranks, plan.activations);
  plan.largest_buffers = largest_buffers(recipe, ranks);
  return plan;
}

NetworkPlan plan_network(const DryStep& step) {
  const auto bytes = [&](Purpose purpose) { return step.traffic[static_cast<std::size_t>(purpose)]; };
  return {.gradients = bytes(Purpose::gradients),
          .parameters = bytes(Purpose::parameters),
          .activations = bytes(Purpose::activations),
          .dispatch = bytes(Purpose::dispatch),
          .combine = bytes(Purpose::combine),
          .statistics = bytes(Purpose::statistics)};
}

}  // namespace conclave
