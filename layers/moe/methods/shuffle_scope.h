// TokenSamples: the scope `shuffle`, in which a token is balanced with a random sample of the step's tokens.
#pragma once

#include "framework/base/random.h"
#include "layers/moe/token_sets.h"

namespace conclave {

/// For each micro-batch of each replica a random sample of the step's tokens, as large as a micro-batch and
/// drawn without replacement. All layers have the same sample. It is the shuffle control of "Demons in the
/// Detail" (arXiv 2501.11873). Padding is drawn like any other token and counts as little as in a
/// micro-batch.
class TokenSamples final : public TokenSets {
 public:
  /// key: of the run and the step.
  TokenSamples(const BatchPlace& place, const RandomKey& key);
  ReadChosen reads_chosen() const override { return ReadChosen::yes; }
  std::int64_t set_of(std::int64_t m, std::int64_t b) const override;
  void count(std::int64_t m, const std::vector<RouterReading>& layers,
             std::vector<std::int64_t>& counts) const override;

 private:
  struct Drawn {
    std::int64_t token;   // in the micro-batch
    std::int64_t sample;  // that it belongs to
  };
  BatchPlace place_;
  std::vector<std::vector<Drawn>> drawn_;  // [micro-steps]; of this replica's tokens
};

}  // namespace conclave
