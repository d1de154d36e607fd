#include "layers/moe/methods/document_pools.h"

#include <algorithm>

#include "framework/base/random.h"
#include "layers/moe/methods.h"

namespace conclave {
namespace {

/// The part of a document that a rank has.
struct Part {
  DocumentSpan document;
  std::int64_t begin, end;  // of this rank's tokens
};

std::vector<Part> parts_of(const ModelInput& shard) {
  check(shard.documents != nullptr, "DocumentPools: an input without documents came; to_device() makes them");
  const std::int64_t begin = shard.first_token, end = begin + shard.tokens.elements();
  std::vector<Part> parts;
  for (const DocumentSpan& document : *shard.documents)
    if (document.end > begin && document.begin < end)
      parts.push_back(
          {document, std::max(document.begin, begin) - begin, std::min(document.end, end) - begin});
  return parts;
}

/// A document of which other ranks have tokens, too.
struct Shared {
  std::int64_t document;  // of this rank's
  std::int64_t place;     // the first boundary between ranks that it crosses
};

std::vector<Shared> shared_of(const ModelInput& shard) {
  const std::int64_t tokens = shard.tokens.elements(), begin = shard.first_token, end = begin + tokens;
  std::vector<Shared> shared;
  const std::vector<Part> parts = parts_of(shard);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const DocumentSpan& document = parts[i].document;
    if (document.begin < begin || document.end > end)
      shared.push_back({static_cast<std::int64_t>(i), document.begin / tokens});
  }
  return shared;
}

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
                            .with(name_)
                            .with(static_cast<std::uint64_t>(draws->first_sequence + document.sequence));
  return recipe_.minimum + static_cast<std::int64_t>(
                               key.below(static_cast<std::uint64_t>(document.ordinal),
                                         static_cast<std::uint64_t>(recipe_.maximum - recipe_.minimum + 1)));
}

Tensor DocumentPools::documents_of(const ModelInput& shard) const {
  std::vector<std::int32_t> rows;
  for (const Part& part : parts_of(shard))
    for (const std::int64_t number : {part.begin, part.end, size_of(part.document, shard.draws)})
      rows.push_back(static_cast<std::int32_t>(number));
  return Tensor::from(rows, {static_cast<std::int64_t>(rows.size()) / 3, 3}, shard.tokens.device());
}

void DocumentPools::close(const RouterInput& input, const Tensor& logits) const {
  const Tensor documents = documents_of(input.input);
  const Tensor sums = Tensor::empty({documents.dim(0), logits.dim(1)}, DType::float64, logits.device());
  const Kernels& kernels = kernels_of(logits);
  kernels.sum_over_documents(logits, documents, sums);
  if (input.micro_batch.size() > 1) join_sums(sums, shared_of(input.input), input.micro_batch);
  kernels.mask_outside_pools(documents, sums, logits);
}

namespace {

class PoolMask final : public Mask {
 public:
  explicit PoolMask(const DocumentPools& pools) : pools_(pools) {}
  void close(const RouterInput& input, const Tensor& logits) const override { pools_.close(input, logits); }

 private:
  DocumentPools pools_;
};

}  // namespace

std::unique_ptr<Mask> pool_mask(const DocumentPools& pools) {
  return std::make_unique<PoolMask>(pools);
}

Method document_pools() {
  return {.mask = [](const MoeRecipe& moe, const std::string& name,
                     const MethodStates&) -> std::unique_ptr<Mask> {
            if (moe.router.pool.maximum == 0) return nullptr;
            check(moe.router.kind == RouterKind::softmax, Fault::request, "model.moe.router.pool came with ",
                  moe.router.kind, " scores; expected softmax");
            return pool_mask({moe.router.pool, name});
          },
          .looks_at_other_tokens = [](const MoeRecipe& moe) -> std::string {
            const PoolRecipe& pool = moe.router.pool;
            // A pool of all experts closes none.
            if (pool.maximum == 0 || pool.evaluation >= moe.num_experts) return "";
            return join_text(
                "model.moe.router.pool.evaluation: ", pool.evaluation,
                " makes all tokens of a document share a pool of experts, and each new token may "
                "change that pool");
          }};
}

}  // namespace conclave
