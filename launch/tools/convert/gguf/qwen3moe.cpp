// qwen3moe: softmax routers whose chosen weights are always made to sum to 1, in every block.
#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_experts(m), has_no_dense_blocks(m), has_whole_rotation(m), has_qk_norm_by_head(m),
                  has_weights_that_sum_to_one(m), has_unscaled_experts(m), has_no_shared_experts(m)},
                 softmax_demands(m)});
}

}  // namespace

const Architecture qwen3moe{.name = "qwen3moe", .demands = demands};

}  // namespace conclave::gguf
