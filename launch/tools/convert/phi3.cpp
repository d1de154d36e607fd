// Phi3ForCausalLM: Llama's mathematics, with the projections of attention in one tensor and those of the MLP
// in another. Positions may turn a part of each head.
#include "launch/tools/convert/origin.h"
#include "launch/tools/convert/rotary_config.h"

namespace conclave {
namespace {

void read_config(const ConfigReader& config, ModelRecipe& m) {
  read_dense_keys(config, m);
  m.attention_bias = AttentionBias::none;
  m.partial_rotary_factor = read_rotary_config(config).partial_rotary_factor.value_or(1.0);
}

/// qkv_proj has the rows of queries, keys and values in this order, gate_up_proj those of gate and up.
std::optional<TensorView> view(const WantedTensor& tensor) {
  const ModelRecipe& m = tensor.model;
  const std::int64_t queries = m.num_attention_heads * m.head_dim, keys = m.num_key_value_heads * m.head_dim;
  struct Part {
    const char *name, *whole;
    std::int64_t first_row, rows;  // rows of the whole
  };
  for (const Part& part :
       {Part{"q_proj.weight", "qkv_proj.weight", 0, queries + 2 * keys},
        {"k_proj.weight", "qkv_proj.weight", queries, queries + 2 * keys},
        {"v_proj.weight", "qkv_proj.weight", queries + keys, queries + 2 * keys},
        {".gate_proj.weight", ".gate_up_proj.weight", 0, 2 * m.intermediate_size},
        {".up_proj.weight", ".gate_up_proj.weight", m.intermediate_size, 2 * m.intermediate_size}})
    if (const auto whole = with_ending(tensor.name, part.name, part.whole))
      return TensorView{.stored = *whole,
                        .stored_shape = {part.rows, m.hidden_size},
                        .first = part.first_row * m.hidden_size};
  return {};
}

}  // namespace

const Origin phi3{.model_type = "phi3",
                  .class_name = "Phi3ForCausalLM",
                  .architecture = llama,
                  .read_config = read_config,
                  .view = view};

}  // namespace conclave
