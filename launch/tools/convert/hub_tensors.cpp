#include "launch/tools/convert/hub_tensors.h"

#include "launch/train/model.h"
#include "launch/train/rank_parts.h"
#include "layers/moe/methods/selection_bias.h"
#include "layers/moe/recipe.h"

namespace conclave {

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
  for (const auto& [name, dims] : parameter_dims(model)) {
    const std::string source = "model/" + name;
    if (dims.size() < 3) {
      tensors.push_back({architecture.tensor_name(name, -1), dims, source, dims});
      continue;
    }
    for (std::int64_t row = 0; row < dims[0]; ++row)
      tensors.push_back(
          {architecture.tensor_name(name, row), {dims.begin() + 1, dims.end()}, source, dims, row});
  }
  if (!architecture.has_selection_bias) return tensors;
  const std::vector<std::int64_t> blocks = moe_blocks(model);
  const std::int64_t layers = count_moe_layers(model), experts = model.moe.num_experts;
  for (std::int64_t layer = 0; layer < layers; ++layer)
    tensors.push_back({join_text("model.layers.", blocks[static_cast<std::size_t>(layer)],
                                 ".mlp.gate.e_score_correction_bias"),
                       {experts},
                       selection_bias_name,
                       {layers, experts},
                       layer,
                       true});
  return tensors;
}

Box box_of(const HubTensor& tensor) {
  Box box{Dims(tensor.source_dims.size(), 0), tensor.source_dims};
  if (tensor.row >= 0) {
    box.start[0] = tensor.row;
    box.size[0] = 1;
  }
  return box;
}

}  // namespace conclave
