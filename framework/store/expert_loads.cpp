#include "framework/store/expert_loads.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "framework/base/error.h"

namespace conclave {

std::vector<std::int64_t> load_per_expert_rank(const std::vector<std::int64_t>& counts, std::int64_t experts,
                                               std::int64_t ranks) {
  check(ranks > 0 && experts % ranks == 0, "load_per_expert_rank: ", ranks, " ranks came for ", experts,
        " experts");
  const auto here = static_cast<std::size_t>(experts / ranks);
  std::vector<std::int64_t> loads(here > 0 ? counts.size() / here : 0);
  for (std::size_t i = 0; i < loads.size() * here; ++i) loads[i / here] += counts[i];
  return loads;
}

std::vector<double> relative_loads(const std::vector<std::int64_t>& counts, std::int64_t experts) {
  std::vector<double> loads;
  for (auto row = counts.begin(); row != counts.end(); row += experts) {
    const double even = static_cast<double>(std::accumulate(row, row + experts, std::int64_t{0})) /
                        static_cast<double>(experts);
    std::transform(row, row + experts, std::back_inserter(loads),
                   [even](std::int64_t count) { return even > 0 ? static_cast<double>(count) / even : 1; });
  }
  return loads;
}

std::vector<double> load_violations(const std::vector<std::int64_t>& loads, std::int64_t width) {
  std::vector<double> violations;
  for (auto row = loads.begin(); row != loads.end(); row += width) {
    const double sum = static_cast<double>(std::accumulate(row, row + width, std::int64_t{0}));
    const double most = static_cast<double>(*std::max_element(row, row + width));
    violations.push_back(sum > 0 ? most * static_cast<double>(width) / sum - 1 : 0);
  }
  return violations;
}

}  // namespace conclave
