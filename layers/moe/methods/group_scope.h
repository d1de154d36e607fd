// SequenceGroups: the scope `group`, in which a token is balanced with a group of consecutive sequences.
#pragma once

#include "layers/moe/token_sets.h"

namespace conclave {

/// The sequences whose positions in the step have the same floor(position / group_size).
class SequenceGroups final : public TokenSets {
 public:
  SequenceGroups(const BatchPlace& place, std::int64_t group_size);
  std::int64_t set_of(std::int64_t m, std::int64_t b) const override;
  void count(std::int64_t m, const std::vector<RouterReading>& layers,
             std::vector<std::int64_t>& counts) const override;

 private:
  BatchPlace place_;
  std::int64_t group_size_;
};

}  // namespace conclave
