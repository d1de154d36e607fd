// ModelInput: one micro-batch on the device, the form in which it walks through the layers.
#pragma once

#include "framework/data/batch.h"
#include "framework/tensor/tensor.h"

namespace conclave {

struct ModelInput {
  std::int64_t sequences = 0, length = 0;
  std::int64_t first_token = 0;     // where `tokens` begins in the micro-batch, when it is a shard of it
  Tensor tokens;                    // int32 [tokens]; -1: padding
  Tensor targets;                   // int32 [tokens]; -1: not counted
  Tensor positions;                 // int32 [tokens]; column in the sequence
  Tensor document_start;            // int32 [sequences, length]; first column that attention may look at
  bool keep_probabilities = false;  // RouterStatistics::probabilities too, for measuring routers
};

/// A tensor rank's even share of the tokens; document_start stays that of the whole micro-batch.
ModelInput shard_of(const ModelInput& input, std::int64_t rank, std::int64_t ranks);

ModelInput to_device(const Batch& batch, Device& device = cpu_device());

}  // namespace conclave
