#include "launch/train/model.h"

#include "launch/train/rank_parts.h"
#include "launch/train/recipe_text.h"
#include "layers/moe/methods.h"
#include "optim/groups.h"

namespace conclave {
DType dtype_of_precision(NumberFormat precision) {
  return precision == NumberFormat::fp32   ? DType::float32
         : precision == NumberFormat::fp64 ? DType::float64
                                           : DType::bfloat16;
}

Parallelism parallelism_of(const Recipe& recipe, const Mesh& mesh) {
  return {.mesh = mesh,
          .sequence = recipe.parallel.sequence ? SequenceParallel::on : SequenceParallel::off,
          .dispatcher = recipe.parallel.dispatcher,
          .dispatch_rows = recipe.parallel.dispatch_rows};
}

Model::Model(const Recipe& recipe, const Mesh& mesh, Device& device, const RouterMaker& router)
    : shape(recipe.model),
      parameters(mesh.layout(), mesh.world().rank()),
      feed_forwards(recipe.model, device, router),
      transformer(parameters, recipe.model, feed_forwards, recipe.training.recompute,
                  parallelism_of(recipe, mesh)) {
  parameters.materialize(dtype_of_precision(recipe.training.precision), recipe.training.seed, device);
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

}  // namespace

void gather_tensors(const std::string& group, const ParameterSet& parameters, const Mesh& mesh,
                    const Tensor& flat, const TensorSink& sink) {
  for (const Parameter& parameter : parameters.all())
    sink(group + "/" + parameter.name, gather_whole(parameter, mesh, flat));
}

void load_model(const CheckpointReader& checkpoint, Model& model) {
  check_fits(checkpoint, {{"model", model.parameters.values().dtype()}}, model.parameters, &model.shape);
  read_values(checkpoint, model.parameters);
  read_router_states(checkpoint, model.feed_forwards.states());
}

void read_state(const CheckpointReader& checkpoint, MethodState& state) {
  if (!checkpoint.contains(state.name)) return;
  const Tensor values = Tensor::empty(state.shape, DType::float64);
  checkpoint.read(state.name, ElementType::float64, dims_of(state.shape), values.raw());
  if (state.values.defined())
    state.values.copy_from(values);
  else
    state.values = values;
}

void read_router_states(const CheckpointReader& checkpoint, const MethodStates& states) {
  for (const std::string& name : checkpoint.names("state"))
    check_keeps_state(states, name, checkpoint.path().string());
  for (MethodState state : states.all) read_state(checkpoint, state);
}

Recipe recipe_of(const CheckpointReader& checkpoint) {
  return parse_recipe(checkpoint.text("recipe"), checkpoint.path().string() + " (recipe)");
}

}  // namespace conclave
