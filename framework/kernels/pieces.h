// Pieces are spans of flat buffers, one after another, cut small enough for a block of a GPU. One launch over
// the parameters of a whole model walks through them.
#pragma once

#include <vector>

#include "framework/tensor/tensor.h"

namespace conclave {

/// Neighbouring elements that are treated alike.
struct FlatSpan {
  std::int64_t first;        // of values and gradients
  std::int64_t first_state;  // of the optimizer's moments
  std::int64_t elements;
  double factor = 1;  // of the learning rate, of the squares in a norm
  double weight_decay = 0;
};

struct Pieces {
  static constexpr std::int64_t most_elements = 16384;
  static Pieces of(const std::vector<FlatSpan>& spans, Device& device);

  Tensor table;     // int64 [pieces, 3]: first, first_state, elements
  Tensor settings;  // float64 [pieces, 2]: factor, weight_decay
  std::int64_t count() const { return table.defined() ? table.dim(0) : 0; }
};

}  // namespace conclave
