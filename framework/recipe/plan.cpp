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

/// Numbers that the blocks keep per token until backward. Attention: the block's input and its norm; q and k
/// before and after their norm and rotation, v, the heads' output and the projection's. MLP: its input and
/// its norm, then per way through it (each chosen expert, the shared experts, or the dense MLP) gate, up,
/// their product, and for a chosen expert its permuted input and output; router logits and probabilities.
double block_activations(const ModelRecipe& m, bool moe) {
  const double hidden = real(m.hidden_size), head = real(m.head_dim);
  const double query = real(m.num_attention_heads) * head, key = real(m.num_key_value_heads) * head;
  const double attention = 3 * hidden + 2 * (query + key) + key + query;
  if (!moe) return attention + 3 * hidden + 3 * real(m.intermediate_size);
  const double width = real(m.moe.moe_intermediate_size);
  return attention + 3 * hidden + 2 * real(m.moe.num_experts) +
         real(m.moe.num_experts_per_tok) * (2 * hidden + 3 * width) +
         3 * real(m.moe.num_shared_experts) * width;
}

}  // namespace

LayoutPlan plan_layout(const Recipe& recipe, int ranks) {
  const std::int64_t rows = recipe.training.micro_batch_size, length = recipe.data.sequence_length;
  LayoutPlan plan;
  plan.ranks = ranks;
  plan.data_ranks = ranks / recipe.parallel.tensor;
  plan.micro_steps = recipe.training.global_batch_size / (rows * plan.data_ranks);
  plan.tokens_per_step = recipe.training.global_batch_size * length;
  plan.tokens_per_micro_batch = rows * length;
  return plan;
}

MemoryPlan plan_memory(const Recipe& recipe) {
  const ModelRecipe& m = recipe.model;
  const ParameterCount count = count_parameters(m);
  const double bytes = element_bytes(recipe);
  const double tokens = real(recipe.training.micro_batch_size) * real(recipe.data.sequence_length);
  const double moe_layers = real(count_moe_layers(m)), dense_layers = real(m.num_hidden_layers) - moe_layers;
  const double moe_block = moe_layers > 0 ? block_activations(m, true) : 0;
  const double dense_block = dense_layers > 0 ? block_activations(m, false) : 0;
  const double largest_block = std::max(moe_block, dense_block);

  // Kept by all blocks (only their inputs under recomputation), then backward's gradients inside one block,
  // and around the LM head its input, the gradient of it and one chunk of logits (512 rows,
  // autograd/ops/vocabulary.cpp).
  const bool recompute = recipe.training.recompute == "block";
  const double kept = recompute ? real(m.num_hidden_layers) * real(m.hidden_size) + largest_block
                                : moe_layers * moe_block + dense_layers * dense_block;
  const double logits = std::min(512.0, tokens) * real(m.vocab_size) * bytes;
  MemoryPlan plan;
  plan.parameters = real(count.total()) * bytes;
  plan.gradients = plan.parameters;
  plan.moments = 2 * plan.parameters;
  plan.activations = tokens * (kept + largest_block + 3 * real(m.hidden_size)) * bytes + logits;

  const double routed = tokens * real(m.moe.num_experts_per_tok);
  plan.largest_buffers = {
      {"embedding", real(count.embedding) * bytes},
      {"LM head", real(count.lm_head) * bytes},
      {"one chunk of logits", logits},
      {"one projection of one block's experts",
       moe_layers > 0 ? real(count.experts) / moe_layers / 3 * bytes : 0},
      {"hidden layer of the chosen experts, one block",
       moe_layers > 0 ? routed * real(m.moe.moe_intermediate_size) * bytes : 0},
      {"rows sent to experts, one block", moe_layers > 0 ? routed * real(m.hidden_size) * bytes : 0},
      {"queries of one block", tokens * real(m.num_attention_heads) * real(m.head_dim) * bytes},
  };
  std::erase_if(plan.largest_buffers, [](const NamedBytes& buffer) { return buffer.bytes == 0; });
  std::stable_sort(plan.largest_buffers.begin(), plan.largest_buffers.end(),
                   [](const NamedBytes& a, const NamedBytes& b) { return a.bytes > b.bytes; });
  return plan;
}

NetworkPlan plan_network(const Recipe& recipe, int ranks) {
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const double share = 2.0 * real(layout.data_ranks - 1) / real(layout.data_ranks);
  NetworkPlan plan;
  plan.gradients = share * real(count_parameters(recipe.model).total()) * element_bytes(recipe);
  const bool counts_travel =
      std::any_of(recipe.model.moe.balance.begin(), recipe.model.moe.balance.end(),
                  [](const BalanceRecipe& term) { return term.scope == "global_batch"; });
  if (counts_travel)
    plan.statistics = share * real(layout.micro_steps) * real(count_moe_layers(recipe.model)) *
                      real(recipe.model.moe.num_experts) * 8.0;
  return plan;
}

}  // namespace conclave
