// qwen3: no experts, norms of queries and keys by head.
#include "launch/tools/convert/gguf/architecture.h"
#include "layers/moe/recipe.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {{count_moe_layers(m) == 0, "it has experts"}, has_whole_rotation(m), has_qk_norm_by_head(m)};
}

}  // namespace

const Architecture qwen3{.name = "qwen3", .demands = demands};

}  // namespace conclave::gguf
