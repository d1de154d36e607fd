#include "layers/document_pools.h"

#include <algorithm>

#include "framework/base/random.h"

namespace conclave {
namespace {

/// A document of which other ranks have tokens, too.
struct Shared {
  std::int64_t document;  // of this rank's
  std::int64_t place;     // the first boundary between ranks that it crosses
};

/// Sums of shared documents, of all ranks together. [ranks - 1, experts]: places that nobody uses stay 0.
void join_sums(const Tensor& sums, const std::vector<Shared>& shared, Communicator& ranks) {
  const Tensor joined = Tensor::zeros({ranks.size() - 1, sums.dim(1)}, DType::float64, sums.device());
  for (const Shared& one : shared)
    joined.slice(one.place, one.place + 1).copy_from(sums.slice(one.document, one.document + 1));
  ranks.all_reduce(joined, ReduceOp::sum, Purpose::statistics);
  for (const Shared& one : shared)
    sums.slice(one.document, one.document + 1).copy_from(joined.slice(one.place, one.place + 1));
}

}  // namespace

std::int64_t DocumentPools::size_of(const DocumentSpan& document,
                                    const std::optional<DrawPlace>& draws) const {
  if (!draws) return recipe_.evaluation;
  const RandomKey key = RandomKey(draws->seed)
                            .with("pool")
                            .with(static_cast<std::uint64_t>(draws->step))
                            .with(router_)
                            .with(static_cast<std::uint64_t>(draws->first_sequence + document.sequence));
  return recipe_.minimum + static_cast<std::int64_t>(
                               key.below(static_cast<std::uint64_t>(document.ordinal),
                                         static_cast<std::uint64_t>(recipe_.maximum - recipe_.minimum + 1)));
}

RoutePools DocumentPools::of(const ModelInput& shard, Communicator& micro_batch) const {
  check(shard.documents != nullptr, "DocumentPools: an input without documents came; to_device() makes them");
  const std::int64_t tokens = shard.tokens.elements(), begin = shard.first_token, end = begin + tokens;
  std::vector<std::int32_t> rows;
  std::vector<Shared> shared;
  for (const DocumentSpan& document : *shard.documents) {
    if (document.end <= begin || document.begin >= end) continue;
    if (document.begin < begin || document.end > end)
      shared.push_back({static_cast<std::int64_t>(rows.size()) / 3, document.begin / tokens});
    for (const std::int64_t number : {std::max(document.begin, begin) - begin,
                                      std::min(document.end, end) - begin, size_of(document, shard.draws)})
      rows.push_back(static_cast<std::int32_t>(number));
  }
  RoutePools pools;
  pools.documents =
      Tensor::from(rows, {static_cast<std::int64_t>(rows.size()) / 3, 3}, shard.tokens.device());
  if (micro_batch.size() > 1)
    pools.join = [shared, &micro_batch](const Tensor& sums) { join_sums(sums, shared, micro_batch); };
  return pools;
}

}  // namespace conclave
