// Attention: grouped-query attention with rotary positions and, when asked, RMSNorm of each query and key
// head before the rotation, exactly as Hugging Face's Qwen3. Parameters under NAME: q_proj, k_proj, v_proj,
// o_proj, q_norm, k_norm. Heads are shared out over tensor ranks.
#pragma once

#include <optional>

#include "framework/recipe/recipe.h"
#include "layers/initial_range.h"
#include "layers/linear.h"
#include "layers/model_input.h"
#include "layers/parallelism.h"

namespace conclave {

class Attention {
 public:
  Attention(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
            const InitialRange& range, const Parallelism& parallelism);

  /// x [rows of the residual stream, hidden] -> the same
  Variable forward(Tape& tape, const Variable& x, const ModelInput& input) const;

 private:
  Parallelism parallelism_;
  std::int64_t heads_, kv_heads_, head_width_;  // heads of this tensor rank
  double rope_theta_;
  Linear query_, key_, value_, output_;
  std::optional<RmsNorm> query_norm_, key_norm_;  // weight [head_width]
};

}  // namespace conclave
