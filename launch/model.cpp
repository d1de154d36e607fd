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

Parallelism parallelism_of(const Recipe& recipe, const Mesh& mesh) {
  return {.mesh = mesh,
          .sequence = recipe.parallel.sequence ? SequenceParallel::on : SequenceParallel::off,
          .dispatcher = recipe.parallel.dispatcher == "all_gather" ? DispatcherKind::all_gather
                                                                   : DispatcherKind::all_to_all,
          .dispatch_rows = recipe.parallel.dispatch_rows};
}

Model::Model(const Recipe& recipe, const Mesh& mesh)
    : parameters(mesh.layout(), mesh.world().rank()),
      transformer(parameters, recipe.model,
                  recipe.training.recompute == "block" ? Recompute::block : Recompute::none,
                  parallelism_of(recipe, mesh)) {
  parameters.materialize(dtype_of_precision(recipe.training.precision), recipe.training.seed);
  freeze(parameters, recipe.optimizer);
}

namespace {

/// Copies one rank's part of a tensor, of shape part_shape, into its place in the whole, which is `ranks`
/// such parts long in `dim`.
void place_part(const Tensor& part, const Shape& part_shape, int dim, std::int64_t rank, std::int64_t ranks,
                const Tensor& whole) {
  std::int64_t outer = 1, inner = 1;
  for (int d = 0; d < dim; ++d) outer *= part_shape[d];
  for (int d = dim; d < part_shape.dims(); ++d) inner *= part_shape[d];
  for (std::int64_t o = 0; o < outer; ++o)
    whole.part((o * ranks + rank) * inner, {inner}).copy_from(part.part(o * inner, {inner}));
}

Tensor gather_whole(const Parameter& parameter, const Mesh& mesh, const Tensor& flat) {
  Tensor whole = flat.part(parameter.offset, parameter.shape);
  for (const Cut& cut : parameter.placement.cuts) {
    Communicator& axis = mesh.axis(cut.axis);
    if (axis.size() == 1) continue;
    const Shape shape = whole.shape();
    const Tensor parts = Tensor::empty({axis.size(), whole.elements()}, whole.dtype(), whole.device());
    axis.all_gather_rows(whole.view({1, whole.elements()}), parts, Purpose::parameters);
    whole = Tensor::empty(shape.with(cut.dim, shape[cut.dim] * axis.size()), parts.dtype(), parts.device());
    for (std::int64_t rank = 0; rank < axis.size(); ++rank)
      place_part(parts.slice(rank, rank + 1), shape, cut.dim, rank, axis.size(), whole);
  }
  return whole;
}

/// This rank's part of a whole tensor, by its origin and shape.
Tensor part_of(const Parameter& parameter, Tensor whole) {
  for (int dim = 0; dim < parameter.shape.dims(); ++dim) {
    const std::int64_t part = parameter.shape[dim], all = whole.dim(dim);
    if (part == all) continue;
    const Shape shape = whole.shape().with(dim, part);
    const Tensor cut = Tensor::empty(shape, whole.dtype(), whole.device());
    std::int64_t outer = 1, inner = 1;
    for (int d = 0; d < dim; ++d) outer *= shape[d];
    for (int d = dim + 1; d < shape.dims(); ++d) inner *= shape[d];
    for (std::int64_t o = 0; o < outer; ++o)
      cut.part(o * part * inner, {part * inner})
          .copy_from(whole.part((o * all + parameter.origin[dim]) * inner, {part * inner}));
    whole = cut;
  }
  return whole;
}

}  // namespace

void gather_tensors(const std::string& group, const ParameterSet& parameters, const Mesh& mesh,
                    const Tensor& flat, const TensorSink& sink) {
  for (const Parameter& parameter : parameters.all())
    sink(group + "/" + parameter.name, gather_whole(parameter, mesh, flat));
}

void add_tensor(CheckpointWriter& checkpoint, const std::string& name, const Tensor& tensor) {
  checkpoint.add(name, element_type(tensor.dtype()), dims_of(tensor.shape()), tensor.raw());
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
    if (info.dims != dims_of(parameter.global_shape) || info.type != element_type(flat.dtype()))
      wrong += join_text("\n  ", name, " is ", element_name(info.type), " ", dims_text(info.dims),
                         ", expected ", name_of(flat.dtype()), " ", parameter.global_shape);
  }
  for (const std::string& name : unused) wrong += join_text("\n  ", name, " is not in the model");
  check(wrong.empty(), Fault::data, checkpoint.path().string(), " does not fit the recipe's model:", wrong);
  for (const Parameter& parameter : parameters.all()) {
    const Tensor whole = Tensor::empty(parameter.global_shape, flat.dtype(), flat.device());
    checkpoint.read(group + "/" + parameter.name, element_type(whole.dtype()), dims_of(whole.shape()),
                    whole.raw());
    flat.part(parameter.offset, parameter.shape).copy_from(part_of(parameter, whole));
  }
}

void load_model(const CheckpointReader& checkpoint, Model& model) {
  read_tensors(checkpoint, "model", model.parameters, model.parameters.values());
  const Tensor& bias = model.transformer.selection_bias();
  if (bias.defined() && checkpoint.contains(selection_bias_name))
    checkpoint.read(selection_bias_name, ElementType::float64, dims_of(bias.shape()), bias.raw());
}

Recipe recipe_of(const CheckpointReader& checkpoint) {
  return parse_recipe(checkpoint.text("recipe"), checkpoint.path().string() + " (recipe)");
}

}  // namespace conclave
