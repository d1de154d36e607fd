// GraniteMoeForCausalLM and GraniteMoeSharedForCausalLM: softmax routers whose chosen weights always sum to
// 1, without norms of queries and keys and without dense blocks; the second has shared experts. A block's
// experts are packed into two tensors. Four multipliers are written so that they change
// nothing; an import puts them into the weights (granite.cpp).
#include <cmath>

#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

double usual_attention_multiplier(const ModelRecipe& m) {
  return 1 / std::sqrt(static_cast<double>(m.head_dim));
}

std::vector<Demand> demands_of_both(const ModelRecipe& m) {
  return joined({{has_experts(m), has_no_dense_blocks(m), has_whole_rotation(m), has_no_qk_norm(m),
                  has_weights_that_sum_to_one(m)},
                 plain_router_demands(m)});
}

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_no_shared_experts(m)}, demands_of_both(m)});
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["intermediate_size"] = m.moe.moe_intermediate_size;
  config["num_local_experts"] = m.moe.num_experts;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["embedding_multiplier"] = 1.0;
  config["attention_multiplier"] = usual_attention_multiplier(m);
  config["residual_multiplier"] = 1.0;
  config["logits_scaling"] = 1.0;
  config["router_aux_loss_coef"] = router_aux_loss_coefficient(m);
  config["output_router_logits"] = false;
}

void write_shared_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  write_config(m, config);
  config["shared_intermediate_size"] = m.moe.num_shared_experts * m.moe.moe_intermediate_size;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = m.moe.moe_intermediate_size = config.whole("intermediate_size");
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  m.moe.router.norm_topk_prob = true;
  read_whole_rotary_config(config);
}

void read_shared_config(const ConfigReader& config, ModelRecipe& m) {
  read_config(config, m);
  const std::int64_t width = config.whole_or("shared_intermediate_size", 0),
                     expert = m.moe.moe_intermediate_size;
  if (width % expert != 0)
    config.refuse("shared_intermediate_size is ", width,
                  ", expected a multiple of intermediate_size: ", expert,
                  ", because Conclave's shared experts are as wide as the routed ones.");
  m.moe.num_shared_experts = width / expert;
}

/// Gate and up matrices have one name, under which they lie one below the other.
std::string tensor_name(const std::string& parameter, std::int64_t) {
  const std::size_t mlp = parameter.find(".mlp.");
  if (mlp == std::string::npos) return parameter;
  const std::string block = parameter.substr(0, mlp), part = parameter.substr(mlp + 5);
  if (part == "gate.weight") return block + ".block_sparse_moe.router.layer.weight";
  return join_text(block, part.starts_with("shared_experts.") ? ".shared_mlp." : ".block_sparse_moe.",
                   part.ends_with("down_proj.weight") ? "output_linear" : "input_linear", ".weight");
}

}  // namespace

const Architecture granitemoe{"granitemoe", "GraniteMoeForCausalLM",
                              true,         false,
                              demands,      write_config,
                              read_config,  tensor_name,
                              false,        true};
const Architecture granitemoeshared{"granitemoeshared",
                                    "GraniteMoeSharedForCausalLM",
                                    true,
                                    false,
                                    demands_of_both,
                                    write_shared_config,
                                    read_shared_config,
                                    tensor_name,
                                    false,
                                    true};

}  // namespace conclave
