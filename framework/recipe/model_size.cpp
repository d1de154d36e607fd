#include "framework/recipe/model_size.h"

#include <initializer_list>

#include "framework/base/error.h"

namespace conclave {

std::int64_t count_moe_layers(const ModelRecipe& model) {
  return model.num_hidden_layers - model.moe.first_k_dense_replace;
}

void check_size(const ModelRecipe& m) {
  const auto require_few = [](std::initializer_list<std::int64_t> factors) {
    double product = 1;
    for (const std::int64_t factor : factors) product *= static_cast<double>(factor);
    // A sum of eight such parts must fit too, in bytes and with the optimizer's moments.
    check(
        product < 0x1p54, Fault::request,
        "model: its sizes multiply to more than 2^54 parameters; expected a smaller vocab_size, hidden_size, "
        "moe_intermediate_size, num_experts or num_hidden_layers");
  };
  const std::int64_t layers = m.num_hidden_layers, hidden = m.hidden_size;
  require_few({m.vocab_size, hidden});
  require_few({layers, 2, hidden, m.head_dim, m.num_attention_heads});
  require_few({layers, 3, hidden, m.intermediate_size});
  require_few({layers, 3, hidden, m.moe.moe_intermediate_size, m.moe.num_experts});
  require_few({layers, 3, hidden, m.moe.moe_intermediate_size, m.moe.num_shared_experts});
}

}  // namespace conclave
