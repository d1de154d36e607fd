// Qwen2ForCausalLM and SeedOssForCausalLM: Llama's mathematics with biases of queries, keys and values. The
// output of attention has none.
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {{count_moe_layers(m) == 0, "it has experts"},
          has_whole_rotation(m),
          has_no_qk_norm(m),
          {m.attention_bias == AttentionBias::qkv, "its queries, keys and values have no biases"}};
}

void write_config(const ModelRecipe&, nlohmann::ordered_json& config) {
  config.erase("attention_bias");  // always of queries, keys and values
  config["use_sliding_window"] = false;
  config["sliding_window"] = nullptr;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  read_whole_rotary_config(config);
  m.attention_bias = AttentionBias::qkv;
}

void read_seed_oss_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  read_whole_rotary_config(config);
  const bool biases = config.flag_or("attention_bias", true),
             of_output = config.flag_or("attention_out_bias", false);
  if (of_output && !biases)
    config.refuse(
        "attention_out_bias is true and attention_bias is false, expected both or the second alone: Conclave "
        "has "
        "no biases of attention's output alone.");
  m.attention_bias = of_output ? AttentionBias::all : biases ? AttentionBias::qkv : AttentionBias::none;
}

}  // namespace

const Architecture qwen2{"qwen2", "Qwen2ForCausalLM", false,       false,
                         demands, write_config,       read_config, usual_tensor_name};
const Origin seed_oss{.model_type = "seed_oss",
                      .class_name = "SeedOssForCausalLM",
                      .architecture = llama,
                      .read_config = read_seed_oss_config};

}  // namespace conclave
