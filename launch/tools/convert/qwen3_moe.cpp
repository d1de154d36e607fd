// Qwen3MoeForCausalLM: the nearest of all to Conclave's own model, down to the names. Leading dense blocks
// are mlp_only_layers.
#include <numeric>

#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_experts(m), has_qk_norm_by_head(m), has_whole_rotation(m), has_no_shared_experts(m)},
                 plain_router_demands(m)});
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  std::vector<std::int64_t> dense(static_cast<std::size_t>(m.moe.first_k_dense_replace));
  std::iota(dense.begin(), dense.end(), 0);
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = dense;
  config["moe_intermediate_size"] = m.moe.moe_intermediate_size;
  config["num_experts"] = m.moe.num_experts;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["norm_topk_prob"] = m.moe.router.norm_topk_prob;
  config["router_aux_loss_coef"] = router_aux_loss_coefficient(m);
  config["output_router_logits"] = false;
  config["use_sliding_window"] = false;
  config["sliding_window"] = nullptr;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.qk_norm = true;
  read_whole_rotary_config(config);
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.moe_intermediate_size = config.whole("moe_intermediate_size");
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", false);
  config.expect("decoder_sparse_step", 1, "Conclave's dense blocks all come first");
  const std::vector<std::int64_t> dense = config.wholes_or_none("mlp_only_layers");
  for (std::size_t i = 0; i < dense.size(); ++i)
    if (dense[i] != static_cast<std::int64_t>(i))
      config.refuse("mlp_only_layers names block ", dense[i],
                    ", but Conclave's dense blocks all come first.");
  m.moe.first_k_dense_replace = static_cast<std::int64_t>(dense.size());
}

}  // namespace

const Architecture qwen3_moe{"qwen3_moe", "Qwen3MoeForCausalLM", true,        false,
                             demands,     write_config,          read_config, usual_tensor_name};

}  // namespace conclave
