// dots1: sigmoid routers, shared experts and norms of queries and keys by head. All that it computes glm4moe
// computes too, so an export takes it by --arch alone.
#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return {has_experts(m),         has_sigmoid(m),          has_shared_experts(m),   has_whole_rotation(m),
          has_qk_norm_by_head(m), has_no_grouped_heads(m), has_own_output_matrix(m)};
}

}  // namespace

const Architecture dots1{
    .name = "dots1", .demands = demands, .has_selection_bias = true, .has_shared_experts = true};

}  // namespace conclave::gguf
