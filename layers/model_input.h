// ModelInput: one micro-batch on the device, the form in which it walks through the layers.
#pragma once

#include "framework/data/batch.h"
#include "framework/tensor/tensor.h"

namespace conclave {

struct ModelInput {
  std::int64_t sequences = 0, length = 0;
  Tensor tokens;          // int32 [tokens]; -1: padding
  Tensor targets;         // int32 [tokens]; -1: not counted
  Tensor positions;       // int32 [tokens]; column in the sequence
  Tensor document_start;  // int32 [sequences, length]; first column that attention may look at
};

ModelInput to_device(const Batch& batch, Device& device = cpu_device());

}  // namespace conclave
