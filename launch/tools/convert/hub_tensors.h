// The tensors of a Hugging Face model directory, each with the parts of a checkpoint that hold the same
// numbers. A part is a parameter, one expert's row of a stack, or one block's row of the selection bias. Both
// directions of the conversion walk through this list; nothing needs to be transposed.
#pragma once

#include <string>
#include <vector>

#include "framework/store/hdf5_file.h"
#include "launch/tools/convert/architecture.h"

namespace conclave {

struct HubPart {
  std::string source;     // of a checkpoint: model/NAME, state/selection_bias
  Dims source_dims;       // of the whole source
  std::int64_t row = -1;  // of the source's dim 0; -1: all of it

  /// Returns the box of the source that the part is.
  Box box() const;
  std::int64_t elements() const;
};

/// A tensor is its parts, one behind another. One without parts is full of zeros.
struct HubTensor {
  std::string name;
  Dims shape;
  std::vector<HubPart> parts;
  bool keep_float32 = false;  // whatever type the others are written in
};

/// Lists the tensors in the order of the model. A selection bias is among them where the architecture has
/// one. A shared expert of zeros is among them where the architecture needs one and the model has none.
std::vector<HubTensor> hub_tensors(const Architecture& architecture, const ModelRecipe& model);

/// ParameterDims is the name and dims of a parameter; parameter_dims lists every parameter of a model, in its
/// order.
struct ParameterDims {
  std::string name;
  Dims dims;
};
std::vector<ParameterDims> parameter_dims(const ModelRecipe& model);

}  // namespace conclave
