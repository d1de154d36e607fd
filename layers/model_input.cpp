#include "layers/model_input.h"

namespace conclave {

namespace {

std::vector<DocumentSpan> documents_of(const Batch& batch) {
  std::vector<DocumentSpan> documents;
  const auto start = [&](std::int64_t t) { return batch.document_start[static_cast<std::size_t>(t)]; };
  for (std::int64_t sequence = 0; sequence < batch.sequences; ++sequence) {
    const std::int64_t first = sequence * batch.length, end = first + batch.length;
    std::int64_t ordinal = 0;
    for (std::int64_t t = first; t < end; ++t) {
      if (batch.tokens[static_cast<std::size_t>(t)] < 0) continue;
      const bool goes_on = t > first && !documents.empty() && documents.back().end == t &&
                           documents.back().sequence == sequence && start(t) == start(t - 1);
      if (!goes_on) documents.push_back({t, t, sequence, ordinal++});
      documents.back().end = t + 1;
    }
  }
  return documents;
}

}  // namespace

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
  const Tensor columns = Tensor::from(positions, {tokens}, device);
  const Shape places{batch.sequences, batch.length};
  return {.sequences = batch.sequences,
          .length = batch.length,
          .tokens = Tensor::from(batch.tokens, {tokens}, device),
          .targets = Tensor::from(batch.targets, {tokens}, device),
          .positions = columns,
          // A token sees its document up to itself.
          .key_ranges = {Tensor::from(batch.document_start, places, device), columns.view(places)},
          .documents = std::make_shared<const std::vector<DocumentSpan>>(documents_of(batch)),
          .draws = {}};
}

ModelInput row_of(std::span<const NextTokens> sequences, Device& device) {
  std::vector<std::int32_t> tokens, positions;
  auto documents = std::make_shared<std::vector<DocumentSpan>>();
  for (const NextTokens& next : sequences) {
    const auto begin = static_cast<std::int64_t>(tokens.size());
    for (const std::int32_t token : next.tokens) {
      positions.push_back(
          static_cast<std::int32_t>(next.seen + static_cast<std::int64_t>(tokens.size()) - begin));
      tokens.push_back(token);
    }
    documents->push_back({.begin = begin,
                          .end = static_cast<std::int64_t>(tokens.size()),
                          .sequence = 0,
                          .ordinal = static_cast<std::int64_t>(documents->size())});
  }
  const auto length = static_cast<std::int64_t>(tokens.size());
  const Tensor columns = Tensor::from(positions, {length}, device);
  return {.sequences = 1,
          .length = length,
          .tokens = Tensor::from(tokens, {length}, device),
          .targets = Tensor::from(std::vector<std::int32_t>(tokens.size(), -1), {length}, device),
          .positions = columns,
          .key_ranges = {Tensor::zeros({1, length}, DType::int32, device), columns.view({1, length})},
          .documents = std::move(documents),
          .draws = {}};
}

}  // namespace conclave
