// How a step and position find their place in the schedule of domains.
#include "framework/data/sample_plan.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/base/random.h"

namespace conclave {

SamplePlan::SamplePlan(const std::vector<double>& weights, std::int64_t domain_block, std::uint64_t seed,
                       std::function<std::int64_t(std::int64_t step)> batch_size, PlanOrigin origin)
    : block_(std::max<std::int64_t>(1, domain_block)),
      seed_(seed),
      batch_size_(std::move(batch_size)),
      schedule_(weights),
      first_step_(origin.step),
      before_(std::move(origin.drawn)),
      first_block_{origin.blocks} {
  check(domain_block >= 0, Fault::request, "a domain_block of ", domain_block, " came, expected 0 or more");
  before_.resize(weights.size(), 0);
  const std::vector<std::int64_t> received = schedule_.received(origin.blocks);
  for (std::size_t d = 0; d < before_.size(); ++d) {
    check(before_[d] >= received[d] * block_, Fault::data, "domain ", d, " has given ", before_[d],
          " sequences, but its schedule has handed out ", received[d], " blocks of ", block_,
          "; the position in the data is damaged");
    before_[d] -= received[d] * block_;
  }
}

std::int64_t SamplePlan::batch_size(std::int64_t step) {
  check(step >= first_step_, "SamplePlan: step ", step, " came, expected ", first_step_, " or more");
  const std::int64_t size = batch_size_(step);
  check(size > 0 && size % block_ == 0, Fault::request, "the global batch of step ", step, " has ", size,
        " sequences, expected a positive multiple of data.domain_block, which is ", block_);
  return size;
}

std::int64_t SamplePlan::first_block(std::int64_t step) {
  check(step >= first_step_, "SamplePlan: step ", step, " came, expected ", first_step_, " or more");
  while (first_step_ + static_cast<std::int64_t>(first_block_.size()) <= step) {
    const std::int64_t last = first_step_ + static_cast<std::int64_t>(first_block_.size()) - 1;
    first_block_.push_back(first_block_.back() + batch_size(last) / block_);
  }
  return first_block_[static_cast<std::size_t>(step - first_step_)];
}

SampleId SamplePlan::at(std::int64_t step, std::int64_t position) {
  const std::int64_t size = batch_size(step);
  check(position >= 0 && position < size, "SamplePlan: position ", position, " came for step ", step,
        ", expected 0 to ", size - 1);
  const RandomKey key = RandomKey(seed_).with("mixture").with(static_cast<std::uint64_t>(step));
  const auto slot = static_cast<std::uint64_t>(position / block_),
             blocks = static_cast<std::uint64_t>(size / block_);
  const DomainSchedule::Turn turn =
      schedule_.turn(first_block(step) + static_cast<std::int64_t>(key.permute(slot, blocks)));
  return {turn.domain,
          before_[static_cast<std::size_t>(turn.domain)] + turn.rank * block_ + position % block_};
}

std::vector<SampleId> SamplePlan::step(std::int64_t step) {
  std::vector<SampleId> samples(static_cast<std::size_t>(batch_size(step)));
  for (std::size_t position = 0; position < samples.size(); ++position)
    samples[position] = at(step, static_cast<std::int64_t>(position));
  return samples;
}

PlanOrigin SamplePlan::origin_at(std::int64_t step) {
  PlanOrigin origin{step, first_block(step), schedule_.received(first_block(step))};
  for (std::size_t d = 0; d < before_.size(); ++d) origin.drawn[d] = before_[d] + origin.drawn[d] * block_;
  return origin;
}

}  // namespace conclave
