// Sizes that follow from those of a recipe, by one rule each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "framework/recipe/recipe.h"

namespace conclave {

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

/// Fault::request where the sizes multiply to more than 2^54 parameters, beyond which bytes cannot be
/// counted.
void check_size(const ModelRecipe& model);

}  // namespace conclave
