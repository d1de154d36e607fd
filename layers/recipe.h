// The keys of the section `model` of a recipe, beside those of its experts.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "framework/base/words.h"
#include "framework/kernels/rope_frequencies.h"

namespace conclave {

class Requirements;
class Visitor;

/// The width that one RMSNorm of queries, or of keys, normalises together.
enum class QkNormOver { head, all_heads };
constexpr auto words_of(QkNormOver) {
  return std::array{Word{QkNormOver::head, "head"}, Word{QkNormOver::all_heads, "all_heads"}};
}

/// The projections of attention that add a bias: none; qkv, queries, keys and values as in Qwen2; all, the
/// output too, as in Llama with attention_bias.
enum class AttentionBias { none, qkv, all };
constexpr auto words_of(AttentionBias) {
  return std::array{Word{AttentionBias::none, "none"}, Word{AttentionBias::qkv, "qkv"},
                    Word{AttentionBias::all, "all"}};
}

/// How a model was stretched to a longer context (framework/kernels/rope_frequencies.h).
constexpr auto words_of(RopeFrequencies::Scaling) {
  using Scaling = RopeFrequencies::Scaling;
  return std::array{Word{Scaling::none, "none"}, Word{Scaling::linear, "linear"},
                    Word{Scaling::llama3, "llama3"}};
}
struct RopeScalingRecipe {
  RopeFrequencies::Scaling type = RopeFrequencies::Scaling::none;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  std::int64_t original_max_position_embeddings = 8192;
  bool operator==(const RopeScalingRecipe&) const = default;
};
void describe(Visitor& v, RopeScalingRecipe& s);

/// The activations that backward computes again instead of keeping them: none, or those of each block.
enum class Recompute { none, block };
constexpr auto words_of(Recompute) {
  return std::array{Word{Recompute::none, "none"}, Word{Recompute::block, "block"}};
}

/// All of a model but its experts.
struct TransformerRecipe {
  std::int64_t vocab_size = 512;
  std::int64_t hidden_size = 128;
  std::int64_t intermediate_size = 512;  // of dense blocks
  std::int64_t num_hidden_layers = 4;
  std::int64_t num_attention_heads = 4;
  std::int64_t num_key_value_heads = 4;
  std::int64_t head_dim = 32;
  double rope_theta = 10000.0;
  double partial_rotary_factor = 1.0;  // of each head, the part at its front that positions turn
  RopeScalingRecipe rope_scaling;
  std::vector<std::int64_t> no_rope_layers;  // blocks in which positions turn nothing
  AttentionBias attention_bias = AttentionBias::none;
  double rms_norm_eps = 1.0e-6;
  bool qk_norm = true;
  QkNormOver qk_norm_over = QkNormOver::head;
  bool qk_norm_after_rope = false;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  bool scale_residual_init = false;  // divide the range of o_proj and down_proj by sqrt(2 * layers)
  bool operator==(const TransformerRecipe&) const = default;
};
void describe(Visitor& v, TransformerRecipe& m);
/// Checks what its keys mean together. Fault::request for the first thing that is impossible.
void require_possible(const Requirements& r, const TransformerRecipe& m);

/// Elements at the front of each head that positions turn; rounded down, as transformers does.
inline std::int64_t rotary_width(const TransformerRecipe& model) {
  return static_cast<std::int64_t>(static_cast<double>(model.head_dim) * model.partial_rotary_factor + 1e-9);
}

/// The angles by which its positions turn.
RopeFrequencies rope_frequencies(const TransformerRecipe& model);
/// False for a block whose attention knows no positions.
bool turns_positions(const TransformerRecipe& model, std::int64_t block);
/// Checks a list of blocks: ascending, each of them there.
void require_blocks(const Requirements& r, const char* key, const std::vector<std::int64_t>& blocks,
                    std::int64_t num_hidden_layers);

/// Elements that one RMSNorm of queries, and one of keys, has weights for.
struct NormWidths {
  std::int64_t query = 0, key = 0;
};
inline NormWidths qk_norm_widths(const TransformerRecipe& model) {
  if (!model.qk_norm) return {};
  if (model.qk_norm_over == QkNormOver::head) return {model.head_dim, model.head_dim};
  return {model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim};
}

}  // namespace conclave
