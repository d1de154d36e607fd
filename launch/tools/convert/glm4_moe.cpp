// Glm4MoeForCausalLM: DeepSeek-style routing on plain attention: sigmoid scores, groups of experts, a
// selection bias (mlp.gate.e_score_correction_bias), a factor on the routed experts, shared experts, leading
// dense blocks.
#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {
      has_experts(m),
      {m.moe.router.kind == RouterKind::sigmoid, join_text("its routers use ", m.moe.router.kind, " scores")},
      {m.moe.num_shared_experts > 0, "it has no shared experts"},
      {!m.qk_norm || m.qk_norm_over == QkNormOver::head, "it normalises queries and keys over all heads"}};
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["partial_rotary_factor"] = m.partial_rotary_factor;
  config["use_qk_norm"] = m.qk_norm;
  config["first_k_dense_replace"] = m.moe.first_k_dense_replace;
  config["moe_intermediate_size"] = m.moe.moe_intermediate_size;
  config["n_routed_experts"] = m.moe.num_experts;
  config["n_shared_experts"] = m.moe.num_shared_experts;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["norm_topk_prob"] = m.moe.router.norm_topk_prob;
  config["routed_scaling_factor"] = m.moe.router.routed_scaling_factor;
  config["n_group"] = m.moe.router.n_group;
  config["topk_group"] = m.moe.router.topk_group;
  config["num_nextn_predict_layers"] = 0;  // a key that transformers would otherwise take for 1
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.partial_rotary_factor = read_rotary_config(config).partial_rotary_factor.value_or(0.5);
  m.qk_norm = config.flag_or("use_qk_norm", false);
  if (m.attention_bias == AttentionBias::all) m.attention_bias = AttentionBias::qkv;  // its output has none
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = config.whole("first_k_dense_replace", 0);
  m.moe.moe_intermediate_size = config.whole("moe_intermediate_size");
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_shared_experts = config.whole("n_shared_experts");
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  RouterRecipe& router = m.moe.router;
  router.kind = RouterKind::sigmoid;
  router.norm_topk_prob = config.flag_or("norm_topk_prob", true);
  router.routed_scaling_factor = config.real_or("routed_scaling_factor", 1.0);
  router.n_group = config.has("n_group") ? config.whole("n_group") : 1;
  router.topk_group = config.has("topk_group") ? config.whole("topk_group") : 1;
}

}  // namespace

const Architecture glm4_moe{"glm4_moe", "Glm4MoeForCausalLM", true,        true,
                            demands,    write_config,         read_config, usual_tensor_name};

}  // namespace conclave
