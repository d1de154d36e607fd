// Model: the transformer that a recipe describes, with its parameters in memory, and how they come from a
// checkpoint.
#pragma once

#include <filesystem>

#include "framework/recipe/recipe.h"
#include "framework/store/checkpoint_file.h"
#include "layers/transformer.h"

namespace conclave {

DType dtype_of_precision(const std::string& precision);

struct Model {
  /// Initial weights are drawn from the recipe's seed; what its parameter groups freeze is marked.
  explicit Model(const Recipe& recipe);
  Model(const Model&) = delete;

  ParameterSet parameters;
  Transformer transformer;
};

/// Reads every parameter of the model; all names and shapes that do not match are listed in one Fault::data.
void load_parameters(const CheckpointReader& checkpoint, ParameterSet& parameters);

/// A checkpoint's recipe, for commands that are given nothing else; paths in it are as the training run saw
/// them.
Recipe recipe_of(const CheckpointReader& checkpoint);

/// A flat buffer laid out as ParameterSet::values(), tensor by tensor under GROUP/NAME.
void add_tensors(CheckpointWriter& checkpoint, const std::string& group, const ParameterSet& parameters,
                 const Tensor& flat);
void read_tensors(const CheckpointReader& checkpoint, const std::string& group,
                  const ParameterSet& parameters, const Tensor& flat);

}  // namespace conclave
