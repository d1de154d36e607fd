// MixtralForCausalLM: no norms of queries and keys, every block has experts, the weights of the chosen ones
// always sum to 1, and experts have names of their own: w1 is gate, w3 is up, w2 is down.
#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_experts(m), has_no_dense_blocks(m), has_whole_rotation(m), has_no_qk_norm(m),
                  has_no_shared_experts(m), has_weights_that_sum_to_one(m)},
                 plain_router_demands(m)});
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["intermediate_size"] = m.moe.moe_intermediate_size;
  config["num_local_experts"] = m.moe.num_experts;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["router_aux_loss_coef"] = router_aux_loss_coefficient(m);
  config["router_jitter_noise"] = 0.0;
  config["output_router_logits"] = false;
  config["sliding_window"] = nullptr;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = m.moe.moe_intermediate_size =
      config.whole(config.one_of({"intermediate_size", "moe_intermediate_size"}));
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  m.moe.router.norm_topk_prob = true;
  // Its default is another than the others'.
  if (!read_whole_rotary_config(config).theta) config.refuse("the key rope_theta is missing.");
}

std::string tensor_name(const std::string& parameter, std::int64_t expert) {
  const std::size_t mlp = parameter.find(".mlp.");
  if (mlp == std::string::npos) return parameter;
  const std::string block = parameter.substr(0, mlp) + ".block_sparse_moe.";
  if (expert < 0) return block + parameter.substr(mlp + 5);
  const char* matrix = parameter.ends_with("gate_proj.weight") ? "w1"
                       : parameter.ends_with("up_proj.weight") ? "w3"
                                                               : "w2";
  return join_text(block, "experts.", expert, ".", matrix, ".weight");
}

}  // namespace

const Architecture mixtral{"mixtral", "MixtralForCausalLM", true,        false,
                           demands,   write_config,         read_config, tensor_name};

}  // namespace conclave
