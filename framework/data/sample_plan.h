// SamplePlan: which sample stands at which place of which step's global batch: a pure function of seed,
// weights, step and position. No rank, micro-batch or order of calls enters. Domains receive blocks in
// proportion to their weights so evenly that at every moment of the run each is less than one block away from
// its share (apart from the rounding of weights to millionths).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace conclave {

struct SampleId {
  std::int32_t domain = 0;
  std::int64_t sample = 0;  // this is the domain's sample-th draw in the run
  bool operator==(const SampleId&) const = default;
};

class SamplePlan {
 public:
  /// `domain_block` consecutive positions come from one domain; 0: each position is a block of its own.
  SamplePlan(const std::vector<double>& weights, std::int64_t domain_block, std::uint64_t seed,
             std::function<std::int64_t(std::int64_t step)> batch_size);

  std::int64_t batch_size(std::int64_t step);
  SampleId at(std::int64_t step, std::int64_t position);
  /// The whole global batch of a step in position order.
  std::vector<SampleId> step(std::int64_t step);
  /// [domains]; how many samples each has given at the beginning of a step.
  std::vector<std::int64_t> drawn(std::int64_t step);

 private:
  struct Turn {
    std::int32_t domain;
    std::int32_t rank;  // how many blocks the domain received before, in this period
  };
  /// The first block of a step, counted over the run.
  std::int64_t first_block(std::int64_t step);
  Turn turn(std::int64_t index);

  std::int64_t block_;
  std::uint64_t seed_;
  std::function<std::int64_t(std::int64_t)> batch_size_;
  std::vector<std::int64_t> shares_;  // [domains]; blocks in one period; they sum to the period
  // What was computed so far, kept to answer quickly; never part of the answer.
  std::vector<std::int64_t> received_;     // [domains]; blocks handed out in turns_
  std::vector<Turn> turns_;                // of the first period, as far as they were needed
  std::vector<std::int64_t> first_block_;  // [steps asked for + 1]
};

}  // namespace conclave
