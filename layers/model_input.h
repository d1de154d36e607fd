// ModelInput: one micro-batch on the device, the form in which it walks through the layers.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "framework/data/batch.h"
#include "framework/kernels/attention_shape.h"
#include "framework/tensor/tensor.h"

namespace conclave {

/// One document to attention: consecutive real tokens of one sequence.
struct DocumentSpan {
  std::int64_t begin = 0, end = 0;  // tokens of the micro-batch, the last one not included
  std::int64_t sequence = 0;        // of the micro-batch
  std::int64_t ordinal = 0;         // in its sequence, from 0
};

/// The key of every draw for a micro-batch in training, so that no layout changes a draw.
struct DrawPlace {
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::int64_t first_sequence = 0;  // position in the step of the micro-batch's first sequence
};

struct ModelInput {
  std::int64_t sequences = 0, length = 0;
  std::int64_t first_token = 0;  // where `tokens` begins in the micro-batch, when it is a shard of it
  Tensor tokens;                 // int32 [tokens]; -1: padding
  Tensor targets;                // int32 [tokens]; -1: not counted
  Tensor positions;              // int32 [tokens]; column in the sequence
  KeyRanges key_ranges;          // of [sequences, length]; the columns that attention sees from each
  std::shared_ptr<const std::vector<DocumentSpan>> documents;  // of the whole micro-batch, in order
  std::optional<DrawPlace> draws;                              // none outside of training
  bool keep_probabilities = false;  // RouterStatistics::probabilities too, for measuring routers
};

/// A tensor rank's even share of the tokens; key_ranges and documents stay those of the whole
/// micro-batch.
ModelInput shard_of(const ModelInput& input, std::int64_t rank, std::int64_t ranks);

ModelInput to_device(const Batch& batch, Device& device = cpu_device());

/// Tokens that come next in a sequence, of which `seen` tokens came before.
struct NextTokens {
  std::span<const std::int32_t> tokens;
  std::int64_t seen = 0;
};
/// Those of several sequences, one behind the other in one row without padding. Positions and key ranges
/// count from the beginning of each token's own sequence, and each sequence is a document.
ModelInput row_of(std::span<const NextTokens> sequences, Device& device = cpu_device());

}  // namespace conclave
