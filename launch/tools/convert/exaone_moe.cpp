// ExaoneMoeForCausalLM: GLM-4-MoE's routing with norms of queries and keys. Blocks with a window turn
// positions; those that see everything turn none (NoPE).
#include "framework/base/error.h"
#include "framework/store/json_text.h"
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

/// A list with one word for each block.
std::vector<std::string> words_of_blocks(const ConfigReader& config, const std::string& key,
                                         const ModelRecipe& m) {
  if (!config.has(key)) config.refuse("the key ", key, " is missing, without which the model is not known.");
  const nlohmann::json& list = config.json()[key];
  std::vector<std::string> words;
  if (list.is_array())
    for (const nlohmann::json& word : list) words.push_back(word.is_string() ? word.get<std::string>() : "");
  if (static_cast<std::int64_t>(words.size()) != m.num_hidden_layers)
    config.refuse(key, ": ", text_of(list), " came, expected a list of ", m.num_hidden_layers, " words.");
  return words;
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  m.qk_norm = true;
  m.attention_bias = AttentionBias::none;
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  m.intermediate_size = config.whole("intermediate_size");
  m.moe.moe_intermediate_size = config.whole("moe_intermediate_size");
  m.moe.num_experts = config.whole("num_experts");
  m.moe.num_shared_experts = config.whole("num_shared_experts");
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  RouterRecipe& router = m.moe.router;
  router.kind = RouterKind::sigmoid;
  router.norm_topk_prob = config.flag_or("norm_topk_prob", true);
  router.routed_scaling_factor = config.real("routed_scaling_factor");
  router.n_group = config.has("n_group") ? config.whole("n_group") : 1;
  router.topk_group = config.has("topk_group") ? config.whole("topk_group") : 1;
  read_whole_rotary_config(config);
  std::vector<std::int64_t> dense;
  const std::vector<std::string> mlps = words_of_blocks(config, "mlp_layer_types", m),
                                 attentions = words_of_blocks(config, "layer_types", m);
  for (std::size_t block = 0; block < mlps.size(); ++block) {
    if (mlps[block] != "sparse") dense.push_back(static_cast<std::int64_t>(block));
    if (config.has("sliding_window") && attentions[block] == "full_attention")
      m.no_rope_layers.push_back(static_cast<std::int64_t>(block));
  }
  set_dense_blocks(m, dense);
}

std::optional<TensorView> view(const WantedTensor& tensor) {
  const std::string bias = ".gate.e_score_correction_bias";
  const auto name = with_ending(tensor.name, bias, ".e_score_correction_bias");
  return name ? std::optional(renamed(*name, tensor.shape)) : std::nullopt;
}

}  // namespace

const Origin exaone_moe{.model_type = "exaone_moe",
                        .class_name = "ExaoneMoeForCausalLM",
                        .architecture = glm4_moe,
                        .read_config = read_config,
                        .view = view};

}  // namespace conclave
