#include "framework/recipe/model_size.h"

#include <initializer_list>

#include "framework/base/error.h"

namespace conclave {
namespace {

std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  bool overflow = false;
  for (const std::int64_t factor : factors) overflow |= __builtin_mul_overflow(result, factor, &result);
  // A sum of eight such parts must fit too, in bytes and with the optimizer's moments.
  check(!overflow && result < (std::int64_t{1} << 54), Fault::request,
        "model: its sizes multiply to more than 2^54 parameters; expected a smaller vocab_size, hidden_size, "
        "moe_intermediate_size, num_experts or num_hidden_layers");
  return result;
}

ParameterCount count(const ModelRecipe& m, std::int64_t experts_counted) {
  const std::int64_t layers = m.num_hidden_layers, hidden = m.hidden_size, moe_layers = count_moe_layers(m);
  ParameterCount parameters;
  parameters.embedding = product({m.vocab_size, hidden});
  parameters.attention = product({layers, 2, hidden, m.head_dim, m.num_attention_heads}) +
                         product({layers, 2, hidden, m.head_dim, m.num_key_value_heads});
  parameters.router = product({moe_layers, hidden, m.moe.num_experts});
  parameters.experts = product({moe_layers, experts_counted, 3, hidden, m.moe.moe_intermediate_size});
  parameters.shared_experts =
      product({moe_layers, m.moe.num_shared_experts, 3, hidden, m.moe.moe_intermediate_size});
  parameters.dense_mlp = product({layers - moe_layers, 3, hidden, m.intermediate_size});
  parameters.norms = product({2 * layers + 1, hidden}) + product({layers, qk_norm_widths(m).query}) +
                     product({layers, qk_norm_widths(m).key});
  parameters.lm_head = m.tie_word_embeddings ? 0 : parameters.embedding;
  return parameters;
}

}  // namespace

std::int64_t count_moe_layers(const ModelRecipe& model) {
  return model.num_hidden_layers - model.moe.first_k_dense_replace;
}

ParameterCount count_parameters(const ModelRecipe& model) {
  return count(model, model.moe.num_experts);
}

ParameterCount count_active_parameters(const ModelRecipe& model) {
  return count(model, model.moe.num_experts_per_tok);
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
