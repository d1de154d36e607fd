// OlmoeForCausalLM: queries and keys are normalised over all heads of a token, every block has experts, and
// intermediate_size is that of an expert.
#include "framework/base/error.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  const std::int64_t width = m.num_attention_heads * m.head_dim;
  return joined(
      {{has_experts(m),
        has_no_dense_blocks(m),
        has_whole_rotation(m),
        has_qk_norm_over_all_heads(m),
        has_no_shared_experts(m),
        {width == m.hidden_size,
         join_text("its heads have ", width, " elements together, not hidden_size: ", m.hidden_size)}},
       plain_router_demands(m)});
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config.erase("head_dim");  // always hidden_size / num_attention_heads
  config["intermediate_size"] = m.moe.moe_intermediate_size;
  config["num_experts"] = m.moe.num_experts;
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["norm_topk_prob"] = m.moe.router.norm_topk_prob;
  config["router_aux_loss_coef"] = router_aux_loss_coefficient(m);
  config["output_router_logits"] = false;
  config["clip_qkv"] = nullptr;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.qk_norm = true;
  m.qk_norm_over = QkNormOver::all_heads;
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = m.moe.moe_intermediate_size =
      config.whole(config.one_of({"intermediate_size", "moe_intermediate_size"}));
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", false);
  config.expect("clip_qkv", nullptr, "Conclave clips no queries, keys and values");
  read_whole_rotary_config(config);
}

}  // namespace

const Architecture olmoe{"olmoe", "OlmoeForCausalLM", true,        false,
                         demands, write_config,       read_config, usual_tensor_name};

}  // namespace conclave
