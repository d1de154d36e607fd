// Dots1ForCausalLM and SolarOpenForCausalLM: GLM-4-MoE's routing. The first always normalises queries and
// keys by head; the second never does, and all of its blocks have experts. In both positions turn whole
// heads.
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

std::vector<Demand> dots1_demands(const ModelRecipe& m) {
  return {has_experts(m), has_sigmoid_routers(m), has_groups_of_several(m), has_qk_norm_by_head(m),
          has_whole_rotation(m)};
}

std::vector<Demand> solar_open_demands(const ModelRecipe& m) {
  return {has_experts(m),    has_sigmoid_routers(m), has_groups_of_several(m),
          has_no_qk_norm(m), has_whole_rotation(m),  has_no_dense_blocks(m)};
}

void write_dots1_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["first_k_dense_replace"] = m.moe.first_k_dense_replace;
  write_grouped_routing(m, config);
  config["moe_layer_freq"] = 1;
  config["scoring_func"] = "sigmoid";
  config["topk_method"] = "noaux_tc";
  config["sliding_window"] = nullptr;  // a key that transformers would otherwise take for 4096
  config["output_router_logits"] = false;
}

void write_solar_open_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config.erase("intermediate_size");  // it is that of dense blocks, which this class does not have
  config["partial_rotary_factor"] = 1.0;
  write_grouped_routing(m, config);
  config["output_router_logits"] = false;
}

void read_dots1_config(const ConfigReader& config, ModelRecipe& m) {
  m.qk_norm = true;
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = config.whole_or("first_k_dense_replace", 0);
  read_grouped_routing(config, m);
  m.moe.num_shared_experts = config.whole("n_shared_experts");
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", false);
  if (!config.json().contains("sliding_window") && !config.has("layer_types") &&
      m.num_hidden_layers > config.whole_or("max_window_layers", 62))
    config.refuse(
        "sliding_window is not there, which means 4096 to transformers, expected sliding_window: null: "
        "Conclave's attention sees the whole document.");
  read_whole_rotary_config(config);
}

void read_solar_open_config(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  config.expect("first_k_dense_replace", 0, "all blocks of Solar Open have experts");
  config.expect("use_qk_norm", false, "Solar Open does not normalise queries and keys");
  read_grouped_routing(config, m);
  m.moe.num_shared_experts = config.whole("n_shared_experts");
  m.intermediate_size = m.moe.moe_intermediate_size;
  m.moe.router.norm_topk_prob = config.flag_or("norm_topk_prob", true);
  // Its default is another than the others'.
  if (!read_whole_rotary_config(config).theta) config.refuse("the key rope_theta is missing.");
}

}  // namespace

const Architecture dots1{"dots1",           "Dots1ForCausalLM", true, true, dots1_demands, write_dots1_config,
                         read_dots1_config, usual_tensor_name,  true};
const Architecture solar_open{
    "solar_open",           "SolarOpenForCausalLM", true, true, solar_open_demands, write_solar_open_config,
    read_solar_open_config, usual_tensor_name,      true};

}  // namespace conclave
