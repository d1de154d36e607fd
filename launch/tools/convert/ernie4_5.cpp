// Ernie4_5ForCausalLM and Ernie4_5_MoeForCausalLM: positions turn neighbouring elements of a head, where
// Conclave turns its halves. So rows of queries and keys are put into another order, which changes no score.
// Routers are softmax with a selection bias; the weights of the chosen experts sum to 1.
#include <algorithm>

#include "framework/base/error.h"
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

void read_common(const ConfigReader& config, ModelRecipe& m) {
  m.tie_word_embeddings = config.flag_or("tie_word_embeddings", true);
  m.intermediate_size = config.whole("intermediate_size");
  m.attention_bias = AttentionBias::none;
  config.expect("use_bias", false, "Conclave's MLPs have no biases");
  // Its default is another than the others'.
  if (!read_whole_rotary_config(config).theta) config.refuse("the key rope_theta is missing.");
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  read_common(config, m);
}

void read_moe_config(const ConfigReader& config, ModelRecipe& m) {
  read_common(config, m);
  m.moe.moe_intermediate_size = config.whole("moe_intermediate_size");
  m.moe.num_experts = config.whole(config.one_of({"moe_num_experts", "num_experts"}));
  m.moe.num_experts_per_tok = config.whole(config.one_of({"moe_k", "num_experts_per_tok"}));
  m.moe.num_shared_experts = config.whole("moe_num_shared_experts", 0);
  m.moe.router.norm_topk_prob = true;
  if (config.real_or("moe_norm_min", 1e-12) > 1e-6)
    config.refuse(
        "moe_norm_min: ", config.real("moe_norm_min"),
        " came, expected at most 1e-6: Conclave divides the weights of the chosen experts by their sum.");
  const std::int64_t first =
                         config.has("moe_layer_start_index") ? config.whole("moe_layer_start_index", 0) : 1,
                     interval = config.has("moe_layer_interval") ? config.whole("moe_layer_interval") : 1;
  const double end = config.real_or("moe_layer_end_index", -1);
  const std::int64_t last = end < 0 ? m.num_hidden_layers - 1 : config.whole("moe_layer_end_index", 0);
  if (m.num_hidden_layers > 1'000'000)
    config.refuse("num_hidden_layers: ", m.num_hidden_layers, " blocks came, expected at most 1000000.");
  std::vector<std::int64_t> dense;
  for (std::int64_t block = 0; block < m.num_hidden_layers; ++block)
    if ((block + 1) % interval != 0 || block < first || block > last) dense.push_back(block);
  set_dense_blocks(m, dense);
}

std::optional<TensorView> view(const WantedTensor& tensor) {
  const std::string bias = ".gate.e_score_correction_bias";
  if (const auto name = with_ending(tensor.name, bias, ".moe_statics.e_score_correction_bias"))
    return renamed(*name, {1, tensor.shape[0]});
  if (!tensor.name.ends_with(".q_proj.weight") && !tensor.name.ends_with(".k_proj.weight")) return {};
  TensorView view = renamed(tensor.name, tensor.shape);
  view.paired_heads = tensor.model.head_dim;
  return view;
}

constexpr const char* note =
    "Rows of its queries and keys are put into the order in which Conclave turns positions.";

}  // namespace

const Origin ernie4_5{.model_type = "ernie4_5",
                      .class_name = "Ernie4_5ForCausalLM",
                      .architecture = llama,
                      .read_config = read_config,
                      .view = view,
                      .note = note};
const Origin ernie4_5_moe{.model_type = "ernie4_5_moe",
                          .class_name = "Ernie4_5_MoeForCausalLM",
                          .architecture = glm4_moe,
                          .read_config = read_moe_config,
                          .view = view,
                          .note = note};

}  // namespace conclave
