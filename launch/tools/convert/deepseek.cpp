// DeepseekForCausalLM, the class of DeepSeekMoE: softmax routers, shared experts, leading dense blocks, no
// norms of queries and keys. vLLM and llama.cpp know it; transformers does not, so its code is written beside
// it.
#include <algorithm>

#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/modeling_code.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  const std::int64_t width = m.num_attention_heads * m.head_dim;
  return joined(
      {{has_experts(m),
        has_whole_rotation(m),
        has_no_qk_norm(m),
        {width == m.hidden_size,
         join_text("its heads have ", width, " elements together, not hidden_size: ", m.hidden_size)}},
       plain_router_demands(m)});
}

/// DeepSeekMoE's loss for single experts is 1 under even routing, as ours is, and a sum over blocks.
double aux_loss_alpha(const ModelRecipe& m) {
  return router_aux_loss_coefficient(m) * static_cast<double>(m.moe.num_experts_per_tok) /
         static_cast<double>(std::max<std::int64_t>(count_moe_layers(m), 1));
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config.erase("head_dim");      // always hidden_size / num_attention_heads
  config.erase("rope_scaling");  // transformers 5 warns of the key where a class is not its own
  config["auto_map"] = auto_map("Deepseek");
  config["moe_intermediate_size"] = m.moe.moe_intermediate_size;
  config["n_routed_experts"] = m.moe.num_experts;
  if (m.moe.num_shared_experts > 0)
    config["n_shared_experts"] = m.moe.num_shared_experts;
  else
    config["n_shared_experts"] = nullptr;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["moe_layer_freq"] = 1;
  config["first_k_dense_replace"] = m.moe.first_k_dense_replace;
  config["norm_topk_prob"] = m.moe.router.norm_topk_prob;
  config["scoring_func"] = "softmax";
  config["aux_loss_alpha"] = aux_loss_alpha(m);
  config["seq_aux"] = !m.moe.balance.empty() && m.moe.balance[0].scope == BalanceScope::sequence;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = config.whole_or("first_k_dense_replace", 0);
  m.moe.moe_intermediate_size = config.whole("moe_intermediate_size");
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_shared_experts = config.whole_or("n_shared_experts", 0);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", false);
  config.expect("moe_layer_freq", 1, "Conclave's dense blocks all come first");
  config.expect("scoring_func", "softmax", "the routers of DeepSeekMoE use softmax scores");
  read_whole_rotary_config(config);
}

}  // namespace

const Architecture deepseek{"deepseek",  "DeepseekForCausalLM", true,  false, demands, write_config,
                            read_config, usual_tensor_name,     false, false, true};

}  // namespace conclave
