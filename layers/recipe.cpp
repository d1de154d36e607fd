#include "layers/recipe.h"

#include "framework/recipe/requirements.h"

namespace conclave {

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
}

}  // namespace conclave
