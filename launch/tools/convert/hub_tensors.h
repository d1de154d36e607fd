// The tensors of a Hugging Face model directory, each with the part of a checkpoint that holds the same
// numbers. That part is a parameter, one expert's row of a stack, or one block's row of the selection bias.
// Both directions of the conversion walk through this list; nothing needs to be transposed.
#pragma once

#include <string>
#include <vector>

#include "framework/store/hdf5_file.h"
#include "launch/tools/convert/architecture.h"

namespace conclave {

struct HubTensor {
  std::string name;
  Dims shape;
  std::string source;         // of a checkpoint: model/NAME, state/selection_bias
  Dims source_dims;           // of the whole source
  std::int64_t row = -1;      // of the source's dim 0; -1: all of it
  bool keep_float32 = false;  // whatever type the others are written in
};

/// Lists the tensors in the order of the model, the rows of a source one after another. A selection bias is
/// among them where the architecture has one.
std::vector<HubTensor> hub_tensors(const Architecture& architecture, const ModelRecipe& model);

/// ParameterDims is the name and dims of a parameter; parameter_dims lists every parameter of a model, in its
/// order.
struct ParameterDims {
  std::string name;
  Dims dims;
};
std::vector<ParameterDims> parameter_dims(const ModelRecipe& model);

/// Returns the box of the source that is read for a tensor.
Box box_of(const HubTensor& tensor);

}  // namespace conclave
