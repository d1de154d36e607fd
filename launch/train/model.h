// Model: the transformer that a recipe describes, with its parameters in memory, and how they come from a
// checkpoint.
#pragma once

#include <filesystem>

#include "framework/store/checkpoint_file.h"
#include "launch/train/recipe.h"
#include "layers/moe/moe.h"
#include "layers/transformer.h"

namespace conclave {

DType dtype_of_precision(NumberFormat precision);

/// How the recipe lays a model out over a mesh.
Parallelism parallelism_of(const Recipe& recipe, const Mesh& mesh);

struct Model {
  /// This rank's part. Initial weights are drawn from the recipe's seed; what its parameter groups freeze is
  /// marked.
  explicit Model(const Recipe& recipe, const Mesh& mesh = Mesh::alone(), Device& device = cpu_device(),
                 const RouterMaker& router = make_router);
  Model(const Model&) = delete;

  ModelRecipe shape;  // as the recipe has it
  ParameterSet parameters;
  FeedForwards feed_forwards;
  Transformer transformer;
};

/// Reads this rank's part of every parameter, and what routers keep where both have it (a run may switch it
/// on later). All names and shapes that do not match are listed in one Fault::data.
void load_model(const CheckpointReader& checkpoint, Model& model);
/// Reads one state where the checkpoint has it.
void read_state(const CheckpointReader& checkpoint, MethodState& state);
/// Reads what routers keep. A state that would be lost is a Fault::request.
void read_router_states(const CheckpointReader& checkpoint, const MethodStates& states);

/// A checkpoint's recipe, for commands that are given nothing else; paths in it are as the training run saw
/// them.
Recipe recipe_of(const CheckpointReader& checkpoint);

/// Gathers a flat buffer laid out as ParameterSet::values() tensor by tensor and hands each whole tensor out
/// under GROUP/NAME, on every rank, in the same order. Collective.
using TensorSink = std::function<void(const std::string& name, const Tensor& whole)>;
void gather_tensors(const std::string& group, const ParameterSet& parameters, const Mesh& mesh,
                    const Tensor& flat, const TensorSink& sink);

}  // namespace conclave
