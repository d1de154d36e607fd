// Attention: grouped-query attention with rotary positions and, when asked, RMSNorm of each query and key
// head before the rotation, exactly as Hugging Face's Qwen3. Parameters under NAME: q_proj, k_proj, v_proj,
// o_proj, q_norm, k_norm.
#pragma once

#include <optional>

#include "framework/recipe/recipe.h"
#include "layers/linear.h"
#include "layers/model_input.h"

namespace conclave {

/// Standard deviations of initial weights.
struct InitialRange {
  double inner = 0.02;     // of most matrices
  double residual = 0.02;  // of those that write into the residual stream: o_proj, down_proj
};

class Attention {
 public:
  Attention(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
            const InitialRange& range);

  /// x [tokens, hidden] -> [tokens, hidden]
  Variable forward(Tape& tape, const Variable& x, const ModelInput& input) const;

 private:
  std::int64_t heads_, kv_heads_, head_width_;
  double rope_theta_;
  Linear query_, key_, value_, output_;
  std::optional<RmsNorm> query_norm_, key_norm_;  // weight [head_width]
};

}  // namespace conclave
