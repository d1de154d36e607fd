// Qwen3MoeForCausalLM: the nearest of all to Conclave's own model, down to the names. Dense blocks are
// mlp_only_layers, and those that decoder_sparse_step leaves out.
#include <algorithm>

#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_experts(m), has_qk_norm_by_head(m), has_whole_rotation(m), has_no_shared_experts(m)},
                 plain_router_demands(m)});
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  std::vector<std::int64_t> dense;
  for (std::int64_t block = 0; block < m.num_hidden_layers; ++block)
    if (is_dense_block(m, block)) dense.push_back(block);
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
  const std::int64_t sparse_step =
      config.has("decoder_sparse_step") ? config.whole("decoder_sparse_step") : 1;
  const std::vector<std::int64_t> named = config.wholes_or_none("mlp_only_layers");
  constexpr std::int64_t most_blocks = 1'000'000;
  if (m.num_hidden_layers > most_blocks)
    config.refuse("num_hidden_layers: ", m.num_hidden_layers,
                  " blocks are announced, more than any directory has tensors; expected at most ",
                  most_blocks, ".");
  std::vector<std::int64_t> dense;
  for (std::int64_t block = 0; block < m.num_hidden_layers; ++block)
    if ((block + 1) % sparse_step != 0 || std::find(named.begin(), named.end(), block) != named.end())
      dense.push_back(block);
  set_dense_blocks(m, dense);
}

}  // namespace

const Architecture qwen3_moe{"qwen3_moe", "Qwen3MoeForCausalLM", true,        false,
                             demands,     write_config,          read_config, usual_tensor_name};

}  // namespace conclave
