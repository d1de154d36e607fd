// GraniteForCausalLM: Llama's mathematics with four multipliers. Each goes into the weights that it stands
// beside: the embedding's into the embedding, attention's into queries, the residual stream's into what
// blocks add, and that of the logits into the last norm.
#include <cmath>

#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

void check_multipliers(const ConfigReader& config) {
  for (const char* key :
       {"embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"})
    if (config.real_or(key, 1) <= 0)
      config.refuse(key, ": ", config.real(key), " came, expected more than 0.");
}

void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  read_whole_rotary_config(config);
  check_multipliers(config);
}

void read_moe_config(const ConfigReader& config, ModelRecipe& m) {
  granitemoe.read_config(config, m);
  check_multipliers(config);
}

void read_shared_config(const ConfigReader& config, ModelRecipe& m) {
  granitemoeshared.read_config(config, m);
  check_multipliers(config);
}

std::optional<TensorView> view(const WantedTensor& tensor) {
  const auto multiplier = [&](const char* key) { return tensor.config.real_or(key, 1); };
  const auto ends_with = [&](const char* ending) { return tensor.name.ends_with(ending); };
  TensorView view = renamed(tensor.name, tensor.shape);
  const double embedding = multiplier("embedding_multiplier");
  if (tensor.name == "model.embed_tokens.weight")
    view.factor = embedding;
  else if (tensor.name == "model.norm.weight")  // a tied head has the embedding's multiplier too
    view.factor = 1 / (multiplier("logits_scaling") * (tensor.model.tie_word_embeddings ? embedding : 1));
  else if (ends_with(".q_proj.weight") || ends_with(".q_proj.bias"))
    view.factor = multiplier("attention_multiplier") * std::sqrt(static_cast<double>(tensor.model.head_dim));
  else if (ends_with(".o_proj.weight") || ends_with(".o_proj.bias") || ends_with(".down_proj.weight") ||
           ends_with(".output_linear.weight"))
    view.factor = multiplier("residual_multiplier");
  else
    return {};
  if (std::abs(view.factor - 1) < 1e-9) view.factor = 1;  // as exports write it, bits stay as they are
  return view;
}

constexpr const char* note =
    "Its multipliers of embedding, attention, residual stream and logits are put into the weights, rounded "
    "to "
    "their type.";

}  // namespace

const Origin granite{.model_type = "granite",
                     .class_name = "GraniteForCausalLM",
                     .architecture = llama,
                     .read_config = read_config,
                     .view = view,
                     .note = note};
const Origin granitemoe_origin{.model_type = "granitemoe",
                               .class_name = "GraniteMoeForCausalLM",
                               .architecture = granitemoe,
                               .read_config = read_moe_config,
                               .view = view,
                               .note = note};
const Origin granitemoeshared_origin{.model_type = "granitemoeshared",
                                     .class_name = "GraniteMoeSharedForCausalLM",
                                     .architecture = granitemoeshared,
                                     .read_config = read_shared_config,
                                     .view = view,
                                     .note = note};

}  // namespace conclave
