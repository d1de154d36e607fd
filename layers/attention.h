// Attention: grouped-query attention with rotary positions, of whole heads or of their fronts. When asked,
// RMSNorm of queries and keys comes before the rotation: over each head as in Hugging Face's Qwen3, or over
// all heads of a token together as in its OLMoE, which needs them all on one rank. HunYuan's norm comes after
// the rotation. Projections may have biases. Parameters under NAME: q_proj, k_proj, v_proj, o_proj, q_norm,
// k_norm. Heads are shared out over tensor ranks.
#pragma once

#include <optional>

#include "framework/kernels/rope_frequencies.h"
#include "layers/linear.h"
#include "layers/recipe.h"
#include "layers/sequence_mixer.h"

namespace conclave {

class Attention final : public SequenceMixer {
 public:
  Attention(ParameterSet& parameters, const std::string& name, const TransformerRecipe& model,
            std::int64_t block, const InitialRange& range, const Parallelism& parallelism);

  const char* purpose() const override { return "attention"; }
  Variable forward(Tape& tape, const Variable& x, const ModelInput& input) const override;

  // The state is the keys and values of the tokens seen: the key-value cache.
  std::unique_ptr<MixerState> make_state(std::int64_t tokens, DType dtype, Device& device) const override;
  std::size_t state_bytes(std::int64_t tokens, DType dtype) const override;
  Variable extend(Tape& tape, const Variable& x, const ModelInput& row,
                  std::span<const Continuation> continuations) const override;

 private:
  struct Projected {
    Variable query, key, value;  // [tokens, heads * head_width]; queries and keys are normalised and rotated
  };
  Projected project(Tape& tape, const Variable& x, const Tensor& positions) const;
  /// [tokens, heads * head_width] -> the same, normalised and rotated per head.
  Variable prepared(Tape& tape, Variable projected, const Tensor& positions, std::int64_t heads,
                    const std::optional<RmsNorm>& norm) const;

  Parallelism parallelism_;
  std::int64_t heads_, kv_heads_, head_width_;  // heads of this tensor rank
  std::int64_t rotary_width_;                   // 0: positions turn nothing
  RopeFrequencies frequencies_;
  bool norm_after_rope_;
  Linear query_, key_, value_, output_;
  std::optional<Bias> query_bias_, key_bias_, value_bias_, output_bias_;
  std::optional<RmsNorm> query_norm_, key_norm_;  // weight [head_width], or [heads * head_width] of all heads
};

}  // namespace conclave
