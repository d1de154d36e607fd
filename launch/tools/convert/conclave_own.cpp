// ConclaveForCausalLM: every model that a recipe can describe. No class of transformers can express all of
// them, so the code of this one, modeling_conclave.py, is written beside the weights.
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/modeling_code.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe&) {
  return {};
}

std::string qk_norm_text(const ModelRecipe& m) {
  return m.qk_norm ? std::string(word_of(m.qk_norm_over)) : "none";
}

void write_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config.erase("rope_scaling");  // transformers 5 warns of the key where a class is not its own
  config["auto_map"] = auto_map("Conclave");
  config["partial_rotary_factor"] = m.partial_rotary_factor;
  config["qk_norm"] = qk_norm_text(m);
  config["first_k_dense_replace"] = m.moe.first_k_dense_replace;
  write_grouped_routing(m, config);
  config["n_shared_experts"] = m.moe.num_shared_experts;
  config["scoring_func"] = word_of(m.moe.router.kind);
  config["use_routing_bias"] = true;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  const RotaryConfig rotary = read_rotary_config(config);
  m.partial_rotary_factor = rotary.partial_rotary_factor.value_or(1.0);
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = config.whole_or("first_k_dense_replace", 0);
  const std::string norm = config.text_or("qk_norm", "none"),
                    score = config.text_or("scoring_func", "softmax");
  m.qk_norm = norm != "none";
  m.qk_norm_over = norm == "all_heads" ? QkNormOver::all_heads : QkNormOver::head;
  if (norm != qk_norm_text(m)) config.refuse("qk_norm is ", norm, ", expected none, head or all_heads.");
  read_grouped_routing(config, m);
  m.moe.num_shared_experts = config.whole_or("n_shared_experts", 0);
  m.moe.router.kind = score == "sigmoid" ? RouterKind::sigmoid : RouterKind::softmax;
  if (score != word_of(m.moe.router.kind))
    config.refuse("scoring_func is ", score, ", expected softmax or sigmoid.");
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", true);
}

}  // namespace

const Architecture conclave_own{"conclave",  "ConclaveForCausalLM", true,  true,  demands, write_config,
                                read_config, usual_tensor_name,     false, false, true};

}  // namespace conclave
