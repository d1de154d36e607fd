// llama: Llama and Mistral without experts, and Mixtral with them. The chosen weights of softmax routers are
// always made to sum to 1.
#include "launch/tools/convert/gguf/architecture.h"
#include "layers/moe/recipe.h"

namespace conclave::gguf {
namespace {

std::vector<Demand> demands(const ModelRecipe& m) {
  const std::vector<Demand> attention = {has_whole_rotation(m), has_no_qk_norm(m)};
  if (count_moe_layers(m) == 0) return attention;
  return joined({attention,
                 {has_no_dense_blocks(m), has_weights_that_sum_to_one(m), has_unscaled_experts(m),
                  has_no_shared_experts(m)},
                 softmax_demands(m)});
}

}  // namespace

const Architecture llama{.name = "llama",
                         .demands = demands,
                         .turns_neighbours = true,
                         .reads_qkv_biases = true,
                         .reads_all_biases = true};

}  // namespace conclave::gguf
