// The shares of a mixture in integers, and the order of their turns.
#include "framework/data/domain_schedule.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "framework/base/error.h"

namespace conclave {
namespace {

/// Weights are rounded to this fraction, and the schedule repeats after this many blocks.
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

DomainSchedule::DomainSchedule(const std::vector<double>& weights)
    : shares_(shares_of(weights)), received_(weights.size(), 0) {}

/// Earliest deadline first (Steiner and Yeomans, "Level schedules for mixed-model, just-in-time processes",
/// 1993): only a domain that is behind its share may receive the next block, and of those the one that would
/// soonest be a whole block behind. Every domain then stays within one block of its share.
void DomainSchedule::extend(std::int64_t turns) {
  while (static_cast<std::int64_t>(turns_.size()) < turns) {
    const auto now = static_cast<std::int64_t>(turns_.size());
    std::size_t best = shares_.size();
    for (std::size_t d = 0; d < shares_.size(); ++d) {
      if (received_[d] * period >= shares_[d] * (now + 1)) continue;
      if (best == shares_.size() || (received_[d] + 1) * shares_[best] < (received_[best] + 1) * shares_[d])
        best = d;
    }
    check(best < shares_.size(), "DomainSchedule: no domain is behind its share at block ", now);
    turns_.push_back({static_cast<std::int32_t>(best), static_cast<std::int32_t>(received_[best]++)});
  }
}

DomainSchedule::Turn DomainSchedule::turn(std::int64_t index) {
  check(index >= 0, "DomainSchedule: turn ", index, " came, expected 0 or more");
  // After a whole period every domain has exactly its share, and the schedule begins anew.
  extend(index % period + 1);
  const ShortTurn here = turns_[static_cast<std::size_t>(index % period)];
  return {here.domain, index / period * shares_[static_cast<std::size_t>(here.domain)] + here.rank};
}

std::vector<std::int64_t> DomainSchedule::received(std::int64_t turns) {
  check(turns >= 0, "DomainSchedule: ", turns, " turns came, expected 0 or more");
  extend(turns % period);
  std::vector<std::int64_t> blocks;
  for (const std::int64_t share : shares_) blocks.push_back(turns / period * share);
  for (std::int64_t index = 0; index < turns % period; ++index)
    ++blocks[static_cast<std::size_t>(turns_[static_cast<std::size_t>(index)].domain)];
  return blocks;
}

}  // namespace conclave
