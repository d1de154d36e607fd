// Qwen3ForCausalLM and LlamaForCausalLM: models without experts, with and without norms of queries and keys.
// To Conclave all of their blocks are leading dense blocks; `conclave import --upcycle` makes experts of
// them.
#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

Demand has_no_experts(const ModelRecipe& m) {
  return {count_moe_layers(m) == 0, "it has experts"};
}

std::vector<Demand> qwen3_demands(const ModelRecipe& m) {
  return {has_no_experts(m), has_whole_rotation(m), has_qk_norm_by_head(m)};
}

std::vector<Demand> llama_demands(const ModelRecipe& m) {
  return {has_no_experts(m), has_whole_rotation(m), has_no_qk_norm(m)};
}

void write_qwen3_config(const ModelRecipe&, nlohmann::ordered_json& config) {
  config["use_sliding_window"] = false;
  config["sliding_window"] = nullptr;
}

void write_llama_config(const ModelRecipe&, nlohmann::ordered_json& config) {
  config["mlp_bias"] = false;
}

void read_dense_config(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.first_k_dense_replace = m.num_hidden_layers;
  m.moe.dense_layers.clear();
  read_whole_rotary_config(config);
}

void read_qwen3_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_config(config, m);
  m.qk_norm = true;
}

}  // namespace

const Architecture qwen3{
    "qwen3",           "Qwen3ForCausalLM", false, false, qwen3_demands, write_qwen3_config,
    read_qwen3_config, usual_tensor_name};
const Architecture llama{
    "llama",           "LlamaForCausalLM", false, false, llama_demands, write_llama_config,
    read_dense_config, usual_tensor_name};

}  // namespace conclave
