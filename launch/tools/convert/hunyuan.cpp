// HunYuanDenseV1ForCausalLM and HunYuanMoEV1ForCausalLM: queries and keys are normalised by head after
// positions have turned them. The mixture has softmax routers whose chosen weights sum to 1, and one shared
// expert.
#include <cmath>

#include "framework/base/error.h"
#include "framework/store/json_text.h"
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

void read_attention(const ConfigReader& config, ModelRecipe& m) {
  m.qk_norm = m.qk_norm_after_rope = true;
  read_whole_rotary_config(config);
  // Positions that are "dynamic" with an alpha have a larger theta.
  const double width = static_cast<double>(m.head_dim);
  for (const std::string section : {"rope_parameters", "rope_scaling"})
    if (config.has(section + ".alpha"))
      m.rope_theta *= std::pow(config.real(section + ".alpha"), width / (width - 2));
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  read_attention(config, m);
}

/// A number for all blocks, or a list with one for each, which must be the same.
std::int64_t whole_of_blocks(const ConfigReader& config, const std::string& key) {
  if (!config.has(key) || !config.json()[key].is_array()) return config.whole(key);
  const std::vector<std::int64_t> numbers = config.wholes_or_none(key);
  for (const std::int64_t number : numbers)
    if (number != numbers[0])
      config.refuse(key, ": ", text_of(config.json()[key]),
                    " came, expected the same number for all blocks.");
  if (numbers.empty() || numbers[0] < 1)
    config.refuse(key, ": ", text_of(config.json()[key]), " came, expected numbers of 1 or more.");
  return numbers[0];
}

void read_moe_config(const ConfigReader& config, ModelRecipe& m) {
  read_attention(config, m);
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = m.moe.moe_intermediate_size = config.whole("intermediate_size");
  m.moe.num_experts = whole_of_blocks(config, config.one_of({"num_experts", "num_local_experts"}));
  m.moe.num_experts_per_tok = whole_of_blocks(config, "moe_topk");
  m.moe.num_shared_experts = 1;
  m.moe.router.norm_topk_prob = true;
  set_dense_blocks(m, {});
}

std::optional<TensorView> view(const WantedTensor& tensor) {
  for (const auto& [ours, theirs] : {std::pair{".q_norm.weight", ".query_layernorm.weight"},
                                     {".k_norm.weight", ".key_layernorm.weight"},
                                     {".mlp.gate.weight", ".mlp.gate.wg.weight"}})
    if (const auto name = with_ending(tensor.name, ours, theirs)) return renamed(*name, tensor.shape);
  const std::string shared = ".shared_experts.";
  const std::size_t at = tensor.name.find(shared);
  if (at == std::string::npos) return {};
  std::string name = tensor.name;
  return renamed(name.replace(at, shared.size(), ".shared_mlp."), tensor.shape);
}

}  // namespace

const Origin hunyuan_v1_dense{.model_type = "hunyuan_v1_dense",
                              .class_name = "HunYuanDenseV1ForCausalLM",
                              .architecture = llama,
                              .read_config = read_config,
                              .view = view};
const Origin hunyuan_v1_moe{.model_type = "hunyuan_v1_moe",
                            .class_name = "HunYuanMoEV1ForCausalLM",
                            .architecture = qwen3_moe,
                            .read_config = read_moe_config,
                            .view = view};

}  // namespace conclave
