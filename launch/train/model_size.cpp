#include "launch/train/model_size.h"

#include "framework/base/error.h"
#include "layers/moe/moe.h"
#include "layers/transformer.h"

namespace conclave {

ModelPart part_of_parameter(std::string_view name) {
  const auto has = [&](const char* text) { return name.find(text) != std::string_view::npos; };
  if (has("embed_tokens.")) return ModelPart::embedding;
  if (has("lm_head.")) return ModelPart::lm_head;
  if (has("norm.")) return ModelPart::norms;
  if (has(".self_attn.")) return ModelPart::attention;
  if (has(".mlp.shared_experts.")) return ModelPart::shared_experts;
  if (has(".mlp.experts.")) return ModelPart::experts;
  if (has(".mlp.gate_proj.") || has(".mlp.up_proj.") || has(".mlp.down_proj.")) return ModelPart::dense_mlp;
  return ModelPart::router;
}

std::int64_t& ParameterCount::operator[](ModelPart part) {
  switch (part) {
    case ModelPart::embedding:
      return embedding;
    case ModelPart::attention:
      return attention;
    case ModelPart::router:
      return router;
    case ModelPart::experts:
      return experts;
    case ModelPart::shared_experts:
      return shared_experts;
    case ModelPart::dense_mlp:
      return dense_mlp;
    case ModelPart::norms:
      return norms;
    case ModelPart::lm_head:
      return lm_head;
  }
  fail(Fault::internal, "ParameterCount: there is no part ", static_cast<int>(part));
}

ParameterCount count_parameters(const ModelRecipe& model) {
  ParameterSet parameters;
  const Transformer transformer(parameters, model, FeedForwards(model), Recompute::none);
  ParameterCount count;
  for (const Parameter& parameter : parameters.all())
    count[part_of_parameter(parameter.name)] += parameter.shape.elements();
  return count;
}

ParameterCount count_active_parameters(const ModelRecipe& model) {
  ParameterCount count = count_parameters(model);
  count.experts = count.experts / model.moe.num_experts * model.moe.num_experts_per_tok;
  return count;
}

double training_flops_per_token(const ModelRecipe& model, std::int64_t sequence_length) {
  const ParameterCount active = count_active_parameters(model);
  const std::int64_t products = active.attention + active.router + active.experts + active.shared_experts +
                                active.dense_mlp +
                                active.embedding;  // the LM head, as large as the embedding
  const double attention = 2.0 * 2.0 * (static_cast<double>(sequence_length) / 2.0) *
                           static_cast<double>(model.num_attention_heads) *
                           static_cast<double>(model.head_dim);
  return 6.0 * static_cast<double>(products) + 3.0 * static_cast<double>(model.num_hidden_layers) * attention;
}

}  // namespace conclave
