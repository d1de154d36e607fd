// DomainSchedule is the endless row of turns in which the datasets of a mixture receive blocks, in proportion
// to their weights. At every moment each dataset is less than one block away from its share. Weights are
// rounded to whole shares of a period, so the row is exact in integers and the same on every machine.
#pragma once

#include <cstdint>
#include <vector>

namespace conclave {

class DomainSchedule {
 public:
  explicit DomainSchedule(const std::vector<double>& weights);

  struct Turn {
    std::int32_t domain = 0;
    std::int64_t rank = 0;  // how many blocks the domain received before
  };
  /// The index-th turn, from 0.
  Turn turn(std::int64_t index);
  /// [domains]; how many blocks each has received in the first `turns` turns.
  std::vector<std::int64_t> received(std::int64_t turns);
  /// [domains]; blocks in one period. Equal shares in the same order make the same row.
  const std::vector<std::int64_t>& shares() const { return shares_; }

 private:
  void extend(std::int64_t turns);

  std::vector<std::int64_t> shares_;
  // The first period as far as it was computed, kept to answer quickly; it never changes an answer.
  std::vector<std::int64_t> received_;  // [domains]; blocks handed out in turns_
  struct ShortTurn {
    std::int32_t domain, rank;
  };
  std::vector<ShortTurn> turns_;
};

}  // namespace conclave
