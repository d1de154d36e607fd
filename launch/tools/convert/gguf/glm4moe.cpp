// glm4moe: DeepSeek-style routing on plain attention. Dense blocks, groups, a factor on the routed experts,
// partial rotary positions and weights of either kind are keys of the file.
#include "launch/tools/convert/gguf/architecture.h"
#include "layers/moe/recipe.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {
      has_experts(m),
      has_sigmoid(m),
      {!m.qk_norm || m.qk_norm_over == QkNormOver::head, "it normalises queries and keys over all heads"}};
}

}  // namespace

const Architecture glm4moe{.name = "glm4moe",
                           .demands = demands,
                           .has_selection_bias = true,
                           .has_shared_experts = true,
                           .reads_qkv_biases = true,
                           .mlp_norm = "post_attention_norm"};

}  // namespace conclave::gguf
