// MiniMaxM2ForCausalLM: sigmoid scores with a selection bias, whose chosen weights always sum to 1; queries
// and keys are normalised over all heads of a token, and positions may turn a part of a head. Every block has
// experts, under Mixtral's names.
#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  return {has_experts(m),
          has_sigmoid_routers(m),
          has_no_dense_blocks(m),
          has_no_shared_experts(m),
          has_qk_norm_over_all_heads(m),
          has_weights_that_sum_to_one(m),
          {groups_never_limit(m), join_text("its experts are in ", router.n_group, " groups")},
          {router.routed_scaling_factor == 1,
           join_text("it scales the routed experts by ", router.routed_scaling_factor)}};
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["intermediate_size"] = m.moe.moe_intermediate_size;
  config["num_local_experts"] = m.moe.num_experts;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["rotary_dim"] = rotary_width(m);
  config["scoring_func"] = "sigmoid";
  config["use_routing_bias"] = true;
  config["use_qk_norm"] = true;
  config["qk_norm_type"] = "per_layer";
  config["shared_intermediate_size"] = 0;
  config["use_mtp"] = false;
  config["router_aux_loss_coef"] = router_aux_loss_coefficient(m);
  config["router_jitter_noise"] = 0.0;
  config["output_router_logits"] = false;
}

/// The released models tell the part that turns as rotary_dim, transformers 5 as partial_rotary_factor.
void read_rotation(const ConfigReader& config, ModelRecipe& m) {
  const RotaryConfig rotary = read_rotary_config(config);
  if (!rotary.theta)
    config.refuse("the key rope_theta is missing.");  // its default is another than the others'
  m.partial_rotary_factor = rotary.partial_rotary_factor.value_or(1.0);
  if (!config.has("rotary_dim")) return;
  const std::int64_t width = config.whole("rotary_dim");
  if (rotary.partial_rotary_factor && rotary_width(m) != width)
    config.refuse("rotary_dim is ", width, ", but partial_rotary_factor is ", m.partial_rotary_factor,
                  ", and both tell the same thing; take the one out that is wrong.");
  if (!rotary.partial_rotary_factor)
    m.partial_rotary_factor = static_cast<double>(width) / static_cast<double>(m.head_dim);
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.qk_norm = true;
  m.qk_norm_over = QkNormOver::all_heads;
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = m.moe.moe_intermediate_size = config.whole("intermediate_size");
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  m.moe.router.kind = RouterKind::sigmoid;
  m.moe.router.norm_topk_prob = true;
  config.expect("scoring_func", "sigmoid", "MiniMax-M2's routers use sigmoid scores");
  config.expect("use_qk_norm", true, "MiniMax-M2 normalises queries and keys");
  config.expect("qk_norm_type", "per_layer", "MiniMax-M2 normalises them over all heads");
  config.expect("shared_intermediate_size", 0, "MiniMax-M2 has no shared experts");
  read_rotation(config, m);
}

std::string tensor_name(const std::string& parameter, std::int64_t expert) {
  const std::string bias = ".mlp.gate.e_score_correction_bias";
  if (parameter.ends_with(bias))
    return parameter.substr(0, parameter.size() - bias.size()) + ".block_sparse_moe.e_score_correction_bias";
  return mixtral.tensor_name(parameter, expert);
}

}  // namespace

const Architecture minimax_m2{"minimax_m2", "MiniMaxM2ForCausalLM", true,        true,
                              demands,      write_config,           read_config, tensor_name};

}  // namespace conclave
