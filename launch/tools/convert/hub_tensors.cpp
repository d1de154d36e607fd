#include "launch/tools/convert/hub_tensors.h"

#include "framework/base/error.h"
#include "launch/train/model.h"
#include "launch/train/rank_parts.h"
#include "layers/moe/methods/selection_bias.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

/// Adds the tensors of one stack of experts' matrices, each under a name of its own.
void add_single_experts(const Architecture& architecture, const ParameterDims& stack,
                        std::vector<HubTensor>& tensors) {
  const Dims matrix(stack.dims.begin() + 1, stack.dims.end());
  for (std::int64_t row = 0; row < stack.dims[0]; ++row)
    tensors.push_back(
        {architecture.tensor_name(stack.name, row), matrix, {{"model/" + stack.name, stack.dims, row}}});
}

/// Adds one tensor of parameters that have the same name there: gate and up matrices of each expert, or of
/// the shared experts, lie one below the other.
void add_packed(const std::string& name, const std::vector<ParameterDims>& members,
                std::vector<HubTensor>& tensors) {
  HubTensor tensor{name, members[0].dims, {}};
  const bool is_stack = tensor.shape.size() == 3;
  tensor.shape[is_stack ? 1 : 0] *= static_cast<std::int64_t>(members.size());
  for (std::int64_t row = 0; row < (is_stack ? members[0].dims[0] : 1); ++row)
    for (const ParameterDims& member : members)
      tensor.parts.push_back({"model/" + member.name, member.dims, is_stack ? row : -1});
  tensors.push_back(tensor);
}

void add_parameters(const Architecture& architecture, const ModelRecipe& model,
                    std::vector<HubTensor>& tensors) {
  const std::vector<ParameterDims> parameters = parameter_dims(model);
  for (std::size_t i = 0; i < parameters.size();) {
    const ParameterDims& first = parameters[i];
    if (first.dims.size() == 3 && !architecture.packs_experts) {
      add_single_experts(architecture, first, tensors);
      ++i;
      continue;
    }
    const std::string name = architecture.tensor_name(first.name, -1);
    std::vector<ParameterDims> members;
    for (; i < parameters.size() && architecture.tensor_name(parameters[i].name, -1) == name; ++i)
      members.push_back(parameters[i]);
    add_packed(name, members, tensors);
  }
}

/// A shared expert of zeros adds nothing to any token, and no gradient ever moves it.
void add_shared_zeros(const Architecture& architecture, const ModelRecipe& model,
                      std::vector<HubTensor>& tensors) {
  const std::int64_t inner = model.moe.moe_intermediate_size, outer = model.hidden_size;
  for (const std::int64_t layer : moe_blocks(model))
    for (const char* matrix : {"gate_proj", "up_proj", "down_proj"})
      tensors.push_back(
          {architecture.tensor_name(
               join_text("model.layers.", layer, ".mlp.shared_experts.", matrix, ".weight"), -1),
           std::string(matrix) == "down_proj" ? Dims{outer, inner} : Dims{inner, outer},
           {}});
}

void add_selection_bias(const Architecture& architecture, const ModelRecipe& model,
                        std::vector<HubTensor>& tensors) {
  const std::vector<std::int64_t> blocks = moe_blocks(model);
  const std::int64_t layers = count_moe_layers(model), experts = model.moe.num_experts;
  for (std::int64_t layer = 0; layer < layers; ++layer)
    tensors.push_back(
        {architecture.tensor_name(join_text("model.layers.", blocks[static_cast<std::size_t>(layer)],
                                            ".mlp.gate.e_score_correction_bias"),
                                  -1),
         {experts},
         {{selection_bias_name, {layers, experts}, layer}},
         true});
}

}  // namespace

std::vector<ParameterDims> parameter_dims(const ModelRecipe& model) {
  ParameterSet parameters;
  const Transformer transformer(parameters, model, FeedForwards(model), Recompute::none);
  std::vector<ParameterDims> dims;
  for (const Parameter& parameter : parameters.all())
    dims.push_back({parameter.name, dims_of(parameter.global_shape)});
  return dims;
}

std::vector<HubTensor> hub_tensors(const Architecture& architecture, const ModelRecipe& model) {
  std::vector<HubTensor> tensors;
  add_parameters(architecture, model, tensors);
  if (architecture.needs_shared_experts && model.moe.num_shared_experts == 0)
    add_shared_zeros(architecture, model, tensors);
  if (architecture.has_selection_bias) add_selection_bias(architecture, model, tensors);
  return tensors;
}

Box HubPart::box() const {
  Box box{Dims(source_dims.size(), 0), source_dims};
  if (row >= 0) {
    box.start[0] = row;
    box.size[0] = 1;
  }
  return box;
}

std::int64_t HubPart::elements() const {
  return element_count(source_dims) / (row >= 0 ? source_dims[0] : 1);
}

}  // namespace conclave
