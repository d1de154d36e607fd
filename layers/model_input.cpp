#include "layers/model_input.h"

namespace conclave {

ModelInput to_device(const Batch& batch, Device& device) {
  const std::int64_t tokens = batch.sequences * batch.length;
  std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens));
  for (std::int64_t t = 0; t < tokens; ++t)
    positions[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(t % batch.length);
  return {.sequences = batch.sequences,
          .length = batch.length,
          .tokens = Tensor::from(batch.tokens, {tokens}, device),
          .targets = Tensor::from(batch.targets, {tokens}, device),
          .positions = Tensor::from(positions, {tokens}, device),
          .document_start = Tensor::from(batch.document_start, {batch.sequences, batch.length}, device)};
}

}  // namespace conclave
