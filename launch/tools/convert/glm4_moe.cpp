// Glm4MoeForCausalLM: DeepSeek-style routing on plain attention: sigmoid scores, groups of experts, a
// selection bias (mlp.gate.e_score_correction_bias), a factor on the routed experts, shared experts, leading
// dense blocks. A model without shared experts is one with a shared expert of zeros.
#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {
      has_experts(m),
      has_sigmoid_routers(m),
      has_groups_of_several(m),
      {!m.qk_norm || m.qk_norm_over == QkNormOver::head, "it normalises queries and keys over all heads"}};
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["partial_rotary_factor"] = m.partial_rotary_factor;
  config["use_qk_norm"] = m.qk_norm;
  config["first_k_dense_replace"] = m.moe.first_k_dense_replace;
  write_grouped_routing(m, config);
  config["num_nextn_predict_layers"] = 0;  // a key that transformers would otherwise take for 1
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.partial_rotary_factor = read_rotary_config(config).partial_rotary_factor.value_or(0.5);
  m.qk_norm = config.flag_or("use_qk_norm", false);
  if (m.attention_bias == AttentionBias::all) m.attention_bias = AttentionBias::qkv;  // its output has none
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = config.whole("first_k_dense_replace", 0);
  read_grouped_routing(config, m);
  m.moe.num_shared_experts = config.whole("n_shared_experts");
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", true);
}

}  // namespace

const Architecture glm4_moe{"glm4_moe",  "Glm4MoeForCausalLM", true, true, demands, write_config,
                            read_config, usual_tensor_name,    true};

}  // namespace conclave
