// Parameters and arithmetic of a model, counted from its recipe alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "framework/recipe/recipe.h"

namespace conclave {

/// Numbers of parameters by part. The products are x W with W [out, in]; there are no biases.
struct ParameterCount {
  std::int64_t embedding = 0;
  std::int64_t attention = 0;  // q, k, v and output projections
  std::int64_t router = 0;
  std::int64_t experts = 0;  // routed: gate, up and down projections
  std::int64_t shared_experts = 0;
  std::int64_t dense_mlp = 0;  // of the leading dense blocks
  std::int64_t norms = 0;
  std::int64_t lm_head = 0;  // 0 where it is the embedding

  std::int64_t total() const {
    return embedding + attention + router + experts + shared_experts + dense_mlp + norms + lm_head;
  }
};

/// Every parameter. Fault::request where the sizes multiply to more than 64 bits can count.
ParameterCount count_parameters(const ModelRecipe& model);

/// The parameters that one token meets: of the routed experts, those that it is sent to.
ParameterCount count_active_parameters(const ModelRecipe& model);

/// Blocks with experts.
std::int64_t count_moe_layers(const ModelRecipe& model);

/// Elements at the front of each head that positions turn; rounded down, as transformers does.
inline std::int64_t rotary_width(const ModelRecipe& model) {
  return static_cast<std::int64_t>(static_cast<double>(model.head_dim) * model.partial_rotary_factor + 1e-9);
}

/// Elements that one RMSNorm of queries, and one of keys, has weights for.
struct NormWidths {
  std::int64_t query = 0, key = 0;
};
inline NormWidths qk_norm_widths(const ModelRecipe& model) {
  if (!model.qk_norm) return {};
  if (model.qk_norm_over == "head") return {model.head_dim, model.head_dim};
  return {model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim};
}

/// The most assignments that an expert takes from one sequence when model.moe.capacity_factor is above 0:
/// floor(capacity_factor * sequence_length * top_k / experts), and never more than the sequence has tokens.
inline std::int64_t expert_capacity(double capacity_factor, std::int64_t sequence_length, std::int64_t top_k,
                                    std::int64_t experts) {
  const double length = static_cast<double>(sequence_length);
  // The little more makes 0.29 of 100 places 29, although no binary fraction is 0.29.
  const double places =
      std::floor(capacity_factor * length * static_cast<double>(top_k) / static_cast<double>(experts) + 1e-9);
  return static_cast<std::int64_t>(std::min(places, length));
}

/// Floating-point operations that training needs per token, forward and backward. A recomputed forward pass,
/// norms, softmaxes and the optimizer are not counted, so that the rate measures useful products only:
///   6 * (active parameters of matrix products: the embedding look-up is none, the LM head is one even when
///   tied)
///   + 3 * num_hidden_layers * (2 products * 2 operations * sequence_length / 2 * heads * head_dim)
/// where sequence_length / 2 counts the causal half of the attention matrix once (documents count as
/// unmasked).
double training_flops_per_token(const ModelRecipe& model, std::int64_t sequence_length);

}  // namespace conclave
