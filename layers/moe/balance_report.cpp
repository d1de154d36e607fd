#include "layers/moe/balance_report.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace conclave {

std::vector<double> fractions_by_row(const ExpertCounts::Counts& counts, std::int64_t experts) {
  std::vector<double> fractions(counts.size());
  for (auto row = counts.begin(); row != counts.end(); row += experts) {
    const auto assignments = static_cast<double>(std::accumulate(row, row + experts, std::int64_t{0}));
    if (assignments > 0)
      std::transform(row, row + experts, fractions.begin() + (row - counts.begin()),
                     [&](std::int64_t count) { return static_cast<double>(count) / assignments; });
  }
  return fractions;
}

double BalanceReport::other(const std::string& name) const {
  for (const Other& one : others)
    if (one.name == name)
      return std::visit([](auto value) { return static_cast<double>(value); }, one.number);
  return std::numeric_limits<double>::quiet_NaN();
}

std::vector<double> BalanceReport::layers_of(const std::string& name) const {
  for (const Other& one : others)
    if (one.name == name) return one.layers;
  return {};
}

void StepSums::add(const std::string& name, std::int64_t size) {
  check(!has(name), "StepSums: the sum ", name, " came twice; expected a name of its own");
  sums_.push_back({name, std::vector<double>(static_cast<std::size_t>(size))});
}

const StepSums::Sum* StepSums::find(const std::string& name) const {
  const auto found =
      std::find_if(sums_.begin(), sums_.end(), [&](const Sum& sum) { return sum.name == name; });
  return found == sums_.end() ? nullptr : &*found;
}

const std::vector<double>& StepSums::operator[](const std::string& name) const {
  const Sum* sum = find(name);
  check(sum != nullptr, "StepSums: the sum ", name, " came, which nobody added; expected add() before");
  return sum->values;
}

std::vector<double>& StepSums::operator[](const std::string& name) {
  return const_cast<std::vector<double>&>(std::as_const(*this)[name]);
}

void StepSums::sum_over(Communicator& ranks) {
  std::vector<double> all;
  for (const Sum& sum : sums_) all.insert(all.end(), sum.values.begin(), sum.values.end());
  const Tensor tensor = Tensor::from(all, {static_cast<std::int64_t>(all.size())});
  ranks.all_reduce(tensor, ReduceOp::sum, Purpose::statistics);
  all = tensor.to_host<double>();
  auto next = all.begin();
  for (Sum& sum : sums_) {
    std::copy_n(next, sum.values.size(), sum.values.begin());
    next += static_cast<std::ptrdiff_t>(sum.values.size());
  }
}

}  // namespace conclave
