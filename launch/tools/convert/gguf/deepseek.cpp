// deepseek: the first DeepSeek-MoE. Softmax routers whose chosen weights stay as they are, shared experts,
// leading dense blocks.
#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  return joined({{has_experts(m), has_whole_rotation(m), has_no_qk_norm(m), has_heads_of_the_hidden_size(m),
                  has_weights_as_they_are(m), has_shared_experts(m)},
                 softmax_demands(m)});
}

}  // namespace

const Architecture deepseek{
    .name = "deepseek", .demands = demands, .turns_neighbours = true, .has_shared_experts = true};

}  // namespace conclave::gguf
