// The tensors of a GGUF file under llama.cpp's names, each with the part of a checkpoint that holds the same
// numbers. llama.cpp's matrices are those of Hugging Face, and experts are one stack, as Conclave keeps them.
#pragma once

#include <string>
#include <vector>

#include "launch/tools/convert/gguf/architecture.h"

namespace conclave::gguf {

struct Tensor {
  TensorPlan plan;
  std::string source{};          // of a checkpoint: model/NAME, state/selection_bias; empty: zeros
  Dims source_dims{};            // of the whole source
  std::int64_t source_row = -1;  // of the source's dim 0; -1: all of it
  std::int64_t heads = 0;  // whose rows change places, so that the halves of a pair are neighbours; 0: none
};

/// Lists them in the order of the model. Matrices are of the wanted type. Vectors and routers are always
/// float32, and rows that no whole blocks of Q8_0 fill are in half precision, as llama.cpp has them.
std::vector<Tensor> tensors_of(const Architecture& architecture, const ModelRecipe& model, NumberType wanted);

/// Puts the rows of each head in the order 0, half, 1, half + 1, ...
void pair_rows(std::vector<float>& matrix, std::int64_t rows, std::int64_t heads);

}  // namespace conclave::gguf
