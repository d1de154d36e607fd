#include "launch/tools/convert/gguf/tensors.h"

#include <algorithm>
#include <map>

#include "framework/base/error.h"
#include "launch/tools/convert/hub_tensors.h"
#include "layers/moe/methods/selection_bias.h"
#include "layers/moe/recipe.h"

namespace conclave::gguf {
namespace {

/// Conclave's names in a block, without .weight or .bias.
const std::map<std::string, std::string>& block_names() {
  static const std::map<std::string, std::string> names = {
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.gate", "ffn_gate_inp"},
      {"mlp.experts.gate_proj", "ffn_gate_exps"},
      {"mlp.experts.up_proj", "ffn_up_exps"},
      {"mlp.experts.down_proj", "ffn_down_exps"},
      {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
      {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
      {"mlp.shared_experts.down_proj", "ffn_down_shexp"}};
  return names;
}

std::string name_in_block(const Architecture& architecture, const std::string& name) {
  if (name == "post_attention_layernorm") return architecture.mlp_norm;
  const auto found = block_names().find(name);
  check(found != block_names().end(), Fault::request, "The parameter ", name,
        " of a block has no name in llama.cpp, which therefore cannot compute this model.");
  return found->second;
}

/// model.layers.3.mlp.gate.weight -> blk.3.ffn_gate_inp.weight
std::string name_of(const Architecture& architecture, const std::string& parameter) {
  if (parameter == "model.embed_tokens.weight") return "token_embd.weight";
  if (parameter == "model.norm.weight") return "output_norm.weight";
  if (parameter == "lm_head.weight") return "output.weight";
  const std::string layers = "model.layers.";
  check(parameter.starts_with(layers), Fault::request, "The parameter ", parameter,
        " has no name in llama.cpp, which therefore cannot compute this model.");
  const std::size_t number_ends = parameter.find('.', layers.size()), kind = parameter.rfind('.');
  return join_text("blk.", parameter.substr(layers.size(), number_ends - layers.size()), ".",
                   name_in_block(architecture, parameter.substr(number_ends + 1, kind - number_ends - 1)),
                   parameter.substr(kind));
}

NumberType type_of(const std::string& name, const Dims& shape, NumberType wanted) {
  if (shape.size() == 1 || name.ends_with("ffn_gate_inp.weight")) return NumberType::f32;
  if (wanted == NumberType::q8_0 && shape.back() % q8_0_block != 0) return NumberType::f16;
  return wanted;
}

std::int64_t heads_of(const std::string& parameter, const ModelRecipe& model) {
  if (parameter.find(".self_attn.q_proj.") != std::string::npos) return model.num_attention_heads;
  if (parameter.find(".self_attn.k_proj.") != std::string::npos) return model.num_key_value_heads;
  return 0;
}

void add_selection_bias(const ModelRecipe& model, std::vector<Tensor>& tensors) {
  const std::vector<std::int64_t> blocks = moe_blocks(model);
  const std::int64_t experts = model.moe.num_experts;
  const auto layers = static_cast<std::int64_t>(blocks.size());
  for (std::int64_t layer = 0; layer < layers; ++layer)
    tensors.push_back(
        {.plan = {join_text("blk.", blocks[static_cast<std::size_t>(layer)], ".exp_probs_b.bias"),
                  {experts},
                  NumberType::f32},
         .source = selection_bias_name,
         .source_dims = {layers, experts},
         .source_row = layer});
}

/// An expert of zeros adds nothing to a token.
void add_shared_zeros(const ModelRecipe& model, NumberType wanted, std::vector<Tensor>& tensors) {
  const Dims in = {model.moe.moe_intermediate_size, model.hidden_size},
             out = {model.hidden_size, model.moe.moe_intermediate_size};
  for (const std::int64_t layer : moe_blocks(model))
    for (const char* matrix : {"gate", "up", "down"}) {
      const std::string name = join_text("blk.", layer, ".ffn_", matrix, "_shexp.weight");
      const Dims& shape = std::string(matrix) == "down" ? out : in;
      tensors.push_back({.plan = {name, shape, type_of(name, shape, wanted)}});
    }
}

}  // namespace

std::vector<Tensor> tensors_of(const Architecture& architecture, const ModelRecipe& model,
                               NumberType wanted) {
  std::vector<Tensor> tensors;
  for (const auto& [parameter, dims] : parameter_dims(model)) {
    const std::string name = name_of(architecture, parameter);
    tensors.push_back({.plan = {name, dims, type_of(name, dims, wanted)},
                       .source = "model/" + parameter,
                       .source_dims = dims,
                       .heads = architecture.turns_neighbours ? heads_of(parameter, model) : 0});
  }
  if (architecture.has_selection_bias) add_selection_bias(model, tensors);
  if (architecture.has_shared_experts && model.moe.num_shared_experts == 0)
    add_shared_zeros(model, wanted, tensors);
  return tensors;
}

void pair_rows(std::vector<float>& matrix, std::int64_t rows, std::int64_t heads) {
  const std::int64_t half = rows / heads / 2;
  const auto width = static_cast<std::ptrdiff_t>(matrix.size()) / rows;
  const std::vector<float> before = matrix;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t head = row / (2 * half), place = row % (2 * half);
    const std::int64_t from = head * 2 * half + place % 2 * half + place / 2;
    std::copy_n(before.begin() + from * width, width, matrix.begin() + row * width);
  }
}

}  // namespace conclave::gguf
