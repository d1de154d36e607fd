#include "layers/recipe.h"

#include <algorithm>

#include "framework/recipe/requirements.h"

namespace conclave {

void describe(Visitor& v, RopeScalingRecipe& s) {
  v.key({"type",
         &s.type,
         "none; linear, all angles divided by factor; or llama3, the slow ones alone",
         {},
         {.gives_meaning_to = Saved::weights}});
  v.key(
      {"factor", &s.factor, "what angles are divided by", at_least(1), {.gives_meaning_to = Saved::weights}});
  v.key({"low_freq_factor",
         &s.low_freq_factor,
         "llama3 divides angles with fewer turns than this in the original context",
         above(0),
         {.gives_meaning_to = Saved::weights}});
  v.key({"high_freq_factor",
         &s.high_freq_factor,
         "llama3 keeps angles with more turns than this in the original context",
         above(0),
         {.gives_meaning_to = Saved::weights}});
  v.key({"original_max_position_embeddings",
         &s.original_max_position_embeddings,
         "tokens of the context that the model was first trained with, for llama3",
         size(),
         {.gives_meaning_to = Saved::weights}});
}

void describe(Visitor& v, TransformerRecipe& m) {
  v.key({"vocab_size", &m.vocab_size, "number of token ids", size()});
  v.key({"hidden_size", &m.hidden_size, "width of a token's state", size(), {.other_names = {"n_embd"}}});
  v.key({"intermediate_size",
         &m.intermediate_size,
         "inner width of a dense MLP",
         size(),
         {.other_names = {"ffn_hidden_size"}}});
  v.key({"num_hidden_layers",
         &m.num_hidden_layers,
         "number of blocks",
         size(),
         {.other_names = {"num_layers", "n_layers", "n_layer"}}});
  v.key({"num_attention_heads",
         &m.num_attention_heads,
         "query heads",
         size(),
         {.other_names = {"n_heads", "n_head"}, .gives_meaning_to = Saved::weights}});
  v.key({"num_key_value_heads",
         &m.num_key_value_heads,
         "key and value heads; divides the query heads",
         size(),
         {.other_names = {"num_query_groups"}, .gives_meaning_to = Saved::weights}});
  v.key({"head_dim", &m.head_dim, "width of one head; even", size(), {.gives_meaning_to = Saved::weights}});
  v.key({"rope_theta",
         &m.rope_theta,
         "base of the rotary position frequencies",
         above(0),
         {.gives_meaning_to = Saved::weights}});
  v.key({"partial_rotary_factor",
         &m.partial_rotary_factor,
         "part of each head, at its front, that positions turn; GLM-4-MoE has 0.5",
         {.least = 0, .most = 1, .least_excluded = true},
         {.gives_meaning_to = Saved::weights}});
  section(v, "rope_scaling", m.rope_scaling,
          "rotary positions of a model that was stretched to a longer context");
  v.key({"no_rope_layers",
         &m.no_rope_layers,
         "blocks, from 0, whose attention knows no positions (NoPE)",
         size_or_zero(),
         {.gives_meaning_to = Saved::weights}});
  v.key({"attention_bias",
         &m.attention_bias,
         "projections of attention with a bias: none, qkv as in Qwen2 and GLM-4.5, or all, the output too",
         {}});
  v.key({"rms_norm_eps",
         &m.rms_norm_eps,
         "added to the mean square in RMSNorm",
         above(0),
         {.other_names = {"norm_eps"}, .gives_meaning_to = Saved::weights}});
  v.key({"qk_norm", &m.qk_norm, "RMSNorm of queries and keys before they are turned", {}});
  v.key({"qk_norm_over",
         &m.qk_norm_over,
         "what it normalises: head, each by itself as Qwen3, or all_heads, a token's together as OLMoE",
         {},
         {.gives_meaning_to = Saved::weights}});
  v.key({"qk_norm_after_rope",
         &m.qk_norm_after_rope,
         "normalise them after they are turned, as HunYuan does",
         {},
         {.gives_meaning_to = Saved::weights}});
  v.key({"tie_word_embeddings", &m.tie_word_embeddings, "LM head and embedding share their weights", {}});
  v.key({"initializer_range", &m.initializer_range, "standard deviation of initial weights", above(0)});
  v.key({"scale_residual_init",
         &m.scale_residual_init,
         "divide it by sqrt(2 * layers) where a block adds to its input",
         {}});
}

void require_possible(const Requirements& r, const TransformerRecipe& m) {
  r.require(m.num_attention_heads % m.num_key_value_heads == 0, "model.num_key_value_heads",
            m.num_key_value_heads,
            " key-value heads cannot be shared evenly by model.num_attention_heads: ", m.num_attention_heads,
            "; expected a divisor of ", m.num_attention_heads);
  r.require(m.head_dim % 2 == 0, "model.head_dim", m.head_dim,
            " came, expected an even number: rotary positions turn pairs");
  r.require(rotary_width(m) >= 2 && rotary_width(m) % 2 == 0, "model.partial_rotary_factor",
            m.partial_rotary_factor, " of model.head_dim: ", m.head_dim, " is ", rotary_width(m),
            " elements; expected an even number of them: rotary positions turn pairs");
  require_blocks(r, "model.no_rope_layers", m.no_rope_layers, m.num_hidden_layers);
  const RopeScalingRecipe& scaling = m.rope_scaling;
  r.require(
      scaling.type != RopeFrequencies::Scaling::llama3 || scaling.low_freq_factor < scaling.high_freq_factor,
      "model.rope_scaling.low_freq_factor", scaling.low_freq_factor,
      " came, expected less than high_freq_factor: ", scaling.high_freq_factor);
  r.require(scaling.type != RopeFrequencies::Scaling::none || scaling.factor == 1,
            "model.rope_scaling.factor", scaling.factor,
            " came with the type none, which stretches nothing; expected the type linear or llama3");
  r.require(!m.qk_norm_after_rope || (m.qk_norm && m.qk_norm_over == QkNormOver::head),
            "model.qk_norm_after_rope", "true came, expected model.qk_norm: true over head");
}

RopeFrequencies rope_frequencies(const TransformerRecipe& m) {
  const RopeScalingRecipe& scaling = m.rope_scaling;
  return {.theta = m.rope_theta,
          .scaling = scaling.type,
          .factor = scaling.factor,
          .low_freq_factor = scaling.low_freq_factor,
          .high_freq_factor = scaling.high_freq_factor,
          .original_positions = static_cast<double>(scaling.original_max_position_embeddings)};
}

bool turns_positions(const TransformerRecipe& m, std::int64_t block) {
  return std::find(m.no_rope_layers.begin(), m.no_rope_layers.end(), block) == m.no_rope_layers.end();
}

void require_blocks(const Requirements& r, const char* key, const std::vector<std::int64_t>& blocks,
                    std::int64_t num_hidden_layers) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    r.require(blocks[i] < num_hidden_layers, key, "block ", blocks[i],
              " came, but model.num_hidden_layers is ", num_hidden_layers, "; blocks count from 0");
    r.require(i == 0 || blocks[i] > blocks[i - 1], key, "block ", blocks[i], " came behind block ",
              i == 0 ? 0 : blocks[i - 1], "; expected each block once, in their order");
  }
}

}  // namespace conclave
