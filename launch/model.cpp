#include "launch/model.h"

#include <set>

#include "framework/recipe/parse.h"
#include "optim/adamw.h"

namespace conclave {
namespace {

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return ElementType::float32;
    case DType::float64:
      return ElementType::float64;
    case DType::int32:
      return ElementType::int32;
    case DType::int64:
      return ElementType::int64;
  }
  fail(Fault::internal, "element_type: unknown dtype");
}

Dims dims_of(const Shape& shape) {
  Dims dims;
  for (int dim = 0; dim < shape.dims(); ++dim) dims.push_back(shape[dim]);
  return dims;
}

}  // namespace

DType dtype_of_precision(const std::string& precision) {
  check(precision == "fp32" || precision == "fp64", Fault::request, "training.precision: \"", precision,
        "\" came, expected fp32 or fp64");
  return precision == "fp64" ? DType::float64 : DType::float32;
}

Model::Model(const Recipe& recipe)
    : transformer(parameters, recipe.model,
                  recipe.training.recompute == "block" ? Recompute::block : Recompute::none) {
  parameters.materialize(dtype_of_precision(recipe.training.precision), recipe.training.seed);
  freeze(parameters, recipe.optimizer);
}

void add_tensors(CheckpointWriter& checkpoint, const std::string& group, const ParameterSet& parameters,
                 const Tensor& flat) {
  for (const Parameter& parameter : parameters.all()) {
    const Tensor tensor = flat.part(parameter.offset, parameter.shape);
    checkpoint.add(group + "/" + parameter.name, element_type(tensor.dtype()), dims_of(tensor.shape()),
                   tensor.raw());
  }
}

void read_tensors(const CheckpointReader& checkpoint, const std::string& group,
                  const ParameterSet& parameters, const Tensor& flat) {
  std::string wrong;
  std::set<std::string> unused;
  for (const std::string& name : checkpoint.names(group)) unused.insert(name);
  for (const Parameter& parameter : parameters.all()) {
    const std::string name = group + "/" + parameter.name;
    unused.erase(name);
    if (!checkpoint.contains(name)) {
      wrong += join_text("\n  ", name, " is missing");
      continue;
    }
    const DatasetInfo info = checkpoint.describe(name);
    if (info.dims != dims_of(parameter.shape) || info.type != element_type(flat.dtype()))
      wrong += join_text("\n  ", name, " is ", element_name(info.type), " ", dims_text(info.dims),
                         ", expected ", name_of(flat.dtype()), " ", parameter.shape);
  }
  for (const std::string& name : unused) wrong += join_text("\n  ", name, " is not in the model");
  check(wrong.empty(), Fault::data, checkpoint.path().string(), " does not fit the recipe's model:", wrong);
  for (const Parameter& parameter : parameters.all()) {
    const Tensor tensor = flat.part(parameter.offset, parameter.shape);
    checkpoint.read(group + "/" + parameter.name, element_type(tensor.dtype()), dims_of(tensor.shape()),
                    tensor.raw());
  }
}

void load_parameters(const CheckpointReader& checkpoint, ParameterSet& parameters) {
  read_tensors(checkpoint, "model", parameters, parameters.values());
}

Recipe recipe_of(const CheckpointReader& checkpoint) {
  return parse_recipe(checkpoint.text("recipe"), checkpoint.path().string() + " (recipe)");
}

}  // namespace conclave
