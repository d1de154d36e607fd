// SamplePlan says which sample stands at which place of which step's global batch. It is a pure function of
// seed, weights, step, position and the samples given before the plan begins. No rank, micro-batch or order
// of calls enters. Domains receive blocks in turns (domain_schedule.h). Every domain's draws follow each
// other without a gap, whatever the weights and batch sizes are and were.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "framework/data/domain_schedule.h"

namespace conclave {

struct SampleId {
  std::int32_t domain = 0;
  std::int64_t sample = 0;  // this is the domain's sample-th draw in the run
  bool operator==(const SampleId&) const = default;
};

/// PlanOrigin says where a plan begins: at the beginning of a run, or where a checkpoint ends.
struct PlanOrigin {
  std::int64_t step = 0;
  std::int64_t blocks = 0;          // of the mixture's schedule, already handed out
  std::vector<std::int64_t> drawn;  // [domains]; samples already given; empty: none
};

class SamplePlan {
 public:
  /// `domain_block` consecutive positions come from one domain; 0: each position is a block of its own.
  SamplePlan(const std::vector<double>& weights, std::int64_t domain_block, std::uint64_t seed,
             std::function<std::int64_t(std::int64_t step)> batch_size, PlanOrigin origin = {});

  std::int64_t batch_size(std::int64_t step);
  SampleId at(std::int64_t step, std::int64_t position);
  /// The whole global batch of a step in position order.
  std::vector<SampleId> step(std::int64_t step);

  /// Where a plan that goes on at the beginning of this step begins.
  PlanOrigin origin_at(std::int64_t step);
  const std::vector<std::int64_t>& shares() const { return schedule_.shares(); }

 private:
  /// The first block of a step, counted over the schedule.
  std::int64_t first_block(std::int64_t step);

  std::int64_t block_;
  std::uint64_t seed_;
  std::function<std::int64_t(std::int64_t)> batch_size_;
  DomainSchedule schedule_;
  std::int64_t first_step_;
  std::vector<std::int64_t> before_;       // [domains]; samples given before the schedule began
  std::vector<std::int64_t> first_block_;  // [steps asked for + 1]; computed so far, never part of the answer
};

}  // namespace conclave
