#include "launch/tools/convert/gguf/architecture.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"
#include "framework/store/json_text.h"
#include "layers/moe/recipe.h"

namespace conclave::gguf {
namespace {

// What llama.cpp has room for (llama-hparams.h).
constexpr std::int64_t most_blocks = 512, most_experts = 1024;

/// True where a token's experts come from some of the groups only.
bool chooses_groups(const RouterRecipe& router) {
  return router.n_group > 1 && router.topk_group < router.n_group;
}

/// What llama.cpp takes for granted whatever the architecture is.
std::vector<Demand> common_demands(const Architecture& architecture, const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  const bool reads_biases = m.attention_bias == AttentionBias::none ||
                            (m.attention_bias == AttentionBias::qkv ? architecture.reads_qkv_biases
                                                                    : architecture.reads_all_biases);
  return {{reads_biases, "the projections of its attention have biases"},
          {m.rope_scaling.type != RopeFrequencies::Scaling::llama3,
           "its positions are scaled as Llama 3.1 does, which Conclave does not write for llama.cpp yet"},
          {m.no_rope_layers.empty(), "its positions turn nothing in some blocks"},
          {!m.qk_norm_after_rope, "it normalises queries and keys after they are turned"},
          {dense_blocks_come_first(m), "it has dense blocks behind blocks with experts"},
          {m.num_hidden_layers <= most_blocks,
           join_text("it has ", m.num_hidden_layers, " blocks, and llama.cpp has room for ", most_blocks)},
          {count_moe_layers(m) == 0 || m.moe.num_experts <= most_experts,
           join_text("it has ", m.moe.num_experts, " experts, and llama.cpp has room for ", most_experts)},
          {count_moe_layers(m) == 0 || !chooses_groups(router) || m.moe.num_experts > router.n_group,
           "its groups have one expert each, and llama.cpp rates a group by two of its experts"}};
}

std::uint32_t whole(std::int64_t value) {
  return static_cast<std::uint32_t>(value);
}

void write_expert_keys(const Architecture& architecture, const ModelRecipe& m, const std::string& prefix,
                       KeyValues& keys) {
  const RouterRecipe& router = m.moe.router;
  constexpr std::uint32_t softmax = 1, sigmoid = 2;
  keys.add(prefix + "expert_count", whole(m.moe.num_experts));
  keys.add(prefix + "expert_used_count", whole(m.moe.num_experts_per_tok));
  keys.add(prefix + "expert_feed_forward_length", whole(m.moe.moe_intermediate_size));
  keys.add(prefix + "expert_gating_func", router.kind == RouterKind::sigmoid ? sigmoid : softmax);
  keys.add(prefix + "expert_weights_norm", router.norm_topk_prob);
  keys.add(prefix + "expert_weights_scale", static_cast<float>(router.routed_scaling_factor));
  keys.add(prefix + "leading_dense_block_count", whole(leading_dense_blocks(m)));
  if (architecture.has_shared_experts)
    keys.add(prefix + "expert_shared_count", whole(std::max<std::int64_t>(m.moe.num_shared_experts, 1)));
  if (!chooses_groups(router)) return;
  keys.add(prefix + "expert_group_count", whole(router.n_group));
  keys.add(prefix + "expert_group_used_count", whole(router.topk_group));
}

}  // namespace

const std::vector<const Architecture*>& architectures() {
  static const std::vector<const Architecture*> all = {&qwen3moe, &olmoe,      &llama,      &glm4moe, &qwen3,
                                                       &deepseek, &granitemoe, &minimax_m2, &dots1};
  return all;
}

std::string why_not(const Architecture& architecture, const ModelRecipe& model) {
  std::string reasons;
  for (const Demand& demand : joined(
           {common_demands(architecture, model), known_router_demands(model), architecture.demands(model)}))
    if (!demand.holds) reasons += (reasons.empty() ? "" : "; ") + demand.otherwise;
  return reasons;
}

const Architecture& architecture_for(const std::string& name, const ModelRecipe& model) {
  std::string all;
  std::vector<std::string> names;
  for (const Architecture* architecture : architectures()) {
    names.emplace_back(architecture->name);
    if (!name.empty() && name != architecture->name) continue;
    const std::string reasons = why_not(*architecture, model);
    if (reasons.empty()) return *architecture;
    check(name.empty(), Fault::request, "llama.cpp's ", name, " would compute another model: ", reasons, ".");
    all += join_text("\n  ", architecture->name, ": ", reasons);
  }
  check(name.empty(), Fault::request, "The architecture '", name, "' came; those of llama.cpp are ",
        join_words(names),
        nearest(name, names).empty() ? "." : "; did you mean '" + nearest(name, names) + "'?");
  fail(Fault::request, "No architecture of llama.cpp that Conclave knows computes this model:", all);
}

void write_model_keys(const Architecture& architecture, const ModelRecipe& m, std::int64_t longest_sequence,
                      KeyValues& keys) {
  const std::string prefix = std::string(architecture.name) + ".";
  const bool all_have_experts = count_moe_layers(m) == m.num_hidden_layers;
  keys.add(prefix + "vocab_size", whole(m.vocab_size));
  keys.add(prefix + "context_length", whole(longest_sequence));
  keys.add(prefix + "embedding_length", whole(m.hidden_size));
  keys.add(prefix + "block_count", whole(m.num_hidden_layers));
  // Where no block is dense, several architectures read the width of an expert here.
  keys.add(prefix + "feed_forward_length",
           whole(all_have_experts ? m.moe.moe_intermediate_size : m.intermediate_size));
  keys.add(prefix + "attention.head_count", whole(m.num_attention_heads));
  keys.add(prefix + "attention.head_count_kv", whole(m.num_key_value_heads));
  keys.add(prefix + "attention.key_length", whole(m.head_dim));
  keys.add(prefix + "attention.value_length", whole(m.head_dim));
  keys.add(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(m.rms_norm_eps));
  keys.add(prefix + "rope.dimension_count", whole(rotary_width(m)));
  keys.add(prefix + "rope.freq_base", static_cast<float>(m.rope_theta));
  if (m.rope_scaling.type == RopeFrequencies::Scaling::linear) {
    keys.add(prefix + "rope.scaling.type", std::string("linear"));
    keys.add(prefix + "rope.scaling.factor", static_cast<float>(m.rope_scaling.factor));
  }
  if (count_moe_layers(m) > 0) write_expert_keys(architecture, m, prefix, keys);
  if (architecture.write_own_keys != nullptr) architecture.write_own_keys(m, keys);
}

std::vector<Demand> softmax_demands(const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  return {{router.kind == RouterKind::softmax, join_text("its routers use ", router.kind, " scores")},
          {router.bias.rate == 0, "its routers choose with a selection bias"},
          {router.kind != RouterKind::softmax || !chooses_groups(router),
           "its softmax routers rate groups of experts by logits, and llama.cpp rates "
           "them by probabilities"}};
}

Demand has_sigmoid(const ModelRecipe& m) {
  return {m.moe.router.kind == RouterKind::sigmoid,
          join_text("its routers use ", m.moe.router.kind, " scores")};
}

Demand has_unscaled_experts(const ModelRecipe& m) {
  return {m.moe.router.routed_scaling_factor == 1,
          join_text("it scales the routed experts by ", m.moe.router.routed_scaling_factor)};
}

Demand has_weights_as_they_are(const ModelRecipe& m) {
  return {!m.moe.router.norm_topk_prob,
          "the weights of its chosen experts are made to sum to 1 (norm_topk_prob: true)"};
}

Demand has_shared_experts(const ModelRecipe& m) {
  return {m.moe.num_shared_experts > 0, "it has no shared experts"};
}

Demand has_no_grouped_heads(const ModelRecipe& m) {
  return {m.num_key_value_heads == m.num_attention_heads,
          join_text("its ", m.num_attention_heads, " heads of queries share ", m.num_key_value_heads,
                    " of keys")};
}

Demand has_heads_of_the_hidden_size(const ModelRecipe& m) {
  const std::int64_t width = m.num_attention_heads * m.head_dim;
  return {width == m.hidden_size,
          join_text("its heads have ", width, " elements together, not hidden_size: ", m.hidden_size)};
}

Demand has_own_output_matrix(const ModelRecipe& m) {
  return {!m.tie_word_embeddings,
          "its output is the embedding (tie_word_embeddings: true), where a matrix of its own is read"};
}

}  // namespace conclave::gguf
