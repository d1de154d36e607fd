#include "layers/model_input.h"

namespace conclave {

ModelInput shard_of(const ModelInput& input, std::int64_t rank, std::int64_t ranks) {
  const std::int64_t tokens = input.tokens.elements() / ranks, begin = rank * tokens;
  check(tokens * ranks == input.tokens.elements(), Fault::request,
        "The layout cannot be: parallel.tensor is ", ranks, ", which does not divide the ",
        input.tokens.elements(), " tokens of a micro-batch.");
  ModelInput shard = input;
  shard.first_token = input.first_token + begin;
  shard.tokens = input.tokens.slice(begin, begin + tokens);
  shard.targets = input.targets.slice(begin, begin + tokens);
  shard.positions = input.positions.slice(begin, begin + tokens);
  return shard;
}

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
