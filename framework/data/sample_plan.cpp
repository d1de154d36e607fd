// The schedule of domains (exact in integers), and how a step and position find their place in it.
#include "framework/data/sample_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "framework/base/error.h"
#include "framework/base/random.h"

namespace conclave {
namespace {

/// Weights are rounded to this fraction, so that the schedule is exact in integers, the same on every
/// machine, and repeats after this many blocks.
constexpr std::int64_t period = std::int64_t{1} << 20;

/// Integer shares of the period; each positive weight keeps at least one.
std::vector<std::int64_t> shares_of(const std::vector<double>& weights) {
  check(!weights.empty() && weights.size() < 65536, Fault::request, "a mixture of ", weights.size(),
        " domains came, expected 1 to 65535");
  double sum = 0;
  for (const double weight : weights) {
    check(std::isfinite(weight) && weight >= 0, Fault::request, "a domain weight of ", weight,
          " came, expected 0 or more");
    sum += weight;
  }
  check(std::isfinite(sum) && sum > 0, Fault::request, "the domain weights sum to ", sum,
        "; at least one must be above 0");
  std::vector<std::int64_t> shares;
  for (const double weight : weights)
    shares.push_back(weight == 0 ? 0 : std::max<std::int64_t>(1, std::llround(weight / sum * period)));
  const std::int64_t total = std::accumulate(shares.begin(), shares.end(), std::int64_t{0});
  *std::max_element(shares.begin(), shares.end()) += period - total;  // a few units of rounding
  return shares;
}

}  // namespace

SamplePlan::SamplePlan(const std::vector<double>& weights, std::int64_t domain_block, std::uint64_t seed,
                       std::function<std::int64_t(std::int64_t step)> batch_size)
    : block_(std::max<std::int64_t>(1, domain_block)),
      seed_(seed),
      batch_size_(std::move(batch_size)),
      shares_(shares_of(weights)),
      received_(weights.size(), 0),
      first_block_{0} {
  check(domain_block >= 0, Fault::request, "a domain_block of ", domain_block, " came, expected 0 or more");
}

std::int64_t SamplePlan::batch_size(std::int64_t step) {
  check(step >= 0, "SamplePlan: step ", step, " came, expected 0 or more");
  const std::int64_t size = batch_size_(step);
  check(size > 0 && size % block_ == 0, Fault::request, "the global batch of step ", step, " has ", size,
        " sequences, expected a positive multiple of data.domain_block, which is ", block_);
  return size;
}

std::int64_t SamplePlan::first_block(std::int64_t step) {
  while (static_cast<std::int64_t>(first_block_.size()) <= step) {
    const auto last = static_cast<std::int64_t>(first_block_.size()) - 1;
    first_block_.push_back(first_block_.back() + batch_size(last) / block_);
  }
  return first_block_[static_cast<std::size_t>(step)];
}

/// Earliest deadline first (Steiner and Yeomans, "Level schedules for mixed-model, just-in-time processes",
/// 1993): only a domain that is behind its share may receive the next block, and of those the one that would
/// soonest be a whole block behind. Every domain then stays within one block of its share.
SamplePlan::Turn SamplePlan::turn(std::int64_t index) {
  while (static_cast<std::int64_t>(turns_.size()) <= index) {
    const auto now = static_cast<std::int64_t>(turns_.size());
    std::size_t best = shares_.size();
    for (std::size_t d = 0; d < shares_.size(); ++d) {
      if (received_[d] * period >= shares_[d] * (now + 1)) continue;
      if (best == shares_.size() || (received_[d] + 1) * shares_[best] < (received_[best] + 1) * shares_[d])
        best = d;
    }
    check(best < shares_.size(), "SamplePlan: no domain is behind its share at block ", now);
    turns_.push_back({static_cast<std::int32_t>(best), static_cast<std::int32_t>(received_[best]++)});
  }
  return turns_[static_cast<std::size_t>(index)];
}

SampleId SamplePlan::at(std::int64_t step, std::int64_t position) {
  const std::int64_t size = batch_size(step);
  check(position >= 0 && position < size, "SamplePlan: position ", position, " came for step ", step,
        ", expected 0 to ", size - 1);
  const RandomKey key = RandomKey(seed_).with("mixture").with(static_cast<std::uint64_t>(step));
  const auto slot = static_cast<std::uint64_t>(position / block_),
             blocks = static_cast<std::uint64_t>(size / block_);
  const std::int64_t block = first_block(step) + static_cast<std::int64_t>(key.permute(slot, blocks));
  // After a whole period every domain has exactly its share, and the schedule begins anew.
  const Turn turn_here = turn(block % period);
  const std::int64_t rank =
      block / period * shares_[static_cast<std::size_t>(turn_here.domain)] + turn_here.rank;
  return {turn_here.domain, rank * block_ + position % block_};
}

std::vector<SampleId> SamplePlan::step(std::int64_t step) {
  std::vector<SampleId> samples(static_cast<std::size_t>(batch_size(step)));
  for (std::size_t position = 0; position < samples.size(); ++position)
    samples[position] = at(step, static_cast<std::int64_t>(position));
  return samples;
}

std::vector<std::int64_t> SamplePlan::drawn(std::int64_t step) {
  const std::int64_t blocks = first_block(step), rest = blocks % period;
  std::vector<std::int64_t> samples;
  for (const std::int64_t share : shares_) samples.push_back(blocks / period * share);
  for (std::int64_t index = 0; index < rest; ++index) ++samples[static_cast<std::size_t>(turn(index).domain)];
  for (std::int64_t& count : samples) count *= block_;
  return samples;
}

}  // namespace conclave
