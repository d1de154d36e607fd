// olmoe: softmax routers whose chosen weights stay as they are. Norms of queries and keys have the hidden
// size, both of them.
#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined(
      {{has_experts(m), has_no_dense_blocks(m), has_whole_rotation(m), has_qk_norm_over_all_heads(m),
        has_heads_of_the_hidden_size(m), has_no_grouped_heads(m), has_weights_as_they_are(m),
        has_unscaled_experts(m), has_no_shared_experts(m), has_own_output_matrix(m)},
       softmax_demands(m)});
}

}  // namespace

const Architecture olmoe{.name = "olmoe", .demands = demands};

}  // namespace conclave::gguf
