// granitemoe: softmax routers whose chosen weights sum to 1, with shared experts or without. Its multipliers
// of embeddings, attention, residuals and logits are 1 where the file does not say otherwise.
#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_experts(m), has_no_dense_blocks(m), has_whole_rotation(m), has_no_qk_norm(m),
                  has_weights_that_sum_to_one(m), has_unscaled_experts(m)},
                 softmax_demands(m)});
}

void write_own_keys(const ModelRecipe& m, KeyValues& keys) {
  keys.add("granitemoe.logit_scale", 1.0f);  // the one multiplier that must be there
  if (m.moe.num_shared_experts > 0)
    keys.add("granitemoe.expert_shared_feed_forward_length",
             static_cast<std::uint32_t>(m.moe.num_shared_experts * m.moe.moe_intermediate_size));
}

}  // namespace

const Architecture granitemoe{
    .name = "granitemoe", .demands = demands, .turns_neighbours = true, .write_own_keys = write_own_keys};

}  // namespace conclave::gguf
