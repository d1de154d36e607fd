// minimax-m2: sigmoid routers whose chosen weights sum to 1, norms of queries and keys over all heads,
// partial rotary positions.
#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {has_experts(m),
          has_sigmoid(m),
          has_no_dense_blocks(m),
          has_qk_norm_over_all_heads(m),
          has_weights_that_sum_to_one(m),
          has_unscaled_experts(m),
          has_no_shared_experts(m),
          has_own_output_matrix(m)};
}

}  // namespace

const Architecture minimax_m2{.name = "minimax-m2", .demands = demands, .has_selection_bias = true};

}  // namespace conclave::gguf
