#include "layers/balance_report.h"

#include <algorithm>
#include <cmath>
#include <numeric>

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

void StepSums::sum_over(Communicator& ranks) {
  const auto parts = {&probabilities, &term_loss, &z, &dropped, &load_signs, &sign_sets};
  std::vector<double> all;
  for (const std::vector<double>* part : parts) all.insert(all.end(), part->begin(), part->end());
  const Tensor tensor = Tensor::from(all, {static_cast<std::int64_t>(all.size())});
  ranks.all_reduce(tensor, ReduceOp::sum, Purpose::statistics);
  all = tensor.to_host<double>();
  auto next = all.begin();
  for (std::vector<double>* part : parts) {
    std::copy_n(next, part->size(), part->begin());
    next += static_cast<std::ptrdiff_t>(part->size());
  }
}

BalanceReport report_of(const ExpertCounts::Counts& counts, const StepSums& sums, const StepFacts& facts) {
  BalanceReport report;
  report.counts = counts;
  const auto experts = static_cast<std::size_t>(facts.experts);
  const double tokens = static_cast<double>(facts.tokens), layers = static_cast<double>(facts.layers);
  const std::vector<double> fractions = fractions_by_row(counts, facts.experts);
  for (const double sum : sums.probabilities) report.mean_probability.push_back(sum / tokens);
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(facts.layers); ++layer) {
    double global = 0, most = 0;
    for (std::size_t i = layer * experts; i < (layer + 1) * experts; ++i) {
      global += static_cast<double>(experts) * fractions[i] * report.mean_probability[i];
      most = std::max(most, fractions[i] * static_cast<double>(experts));
    }
    const double loss = facts.any_term ? sums.term_loss[layer] : global;
    report.layer_balance_loss.push_back(loss);
    report.load_balance_loss += loss / layers;
    report.global_balance_loss += global / layers;
    report.router_z_loss += sums.z[layer] / tokens / layers;
    report.max_load_violation = std::max(report.max_load_violation, most - 1);
    for (const std::vector<double>& used : facts.used) {
      double error = 0;
      for (std::size_t i = layer * experts; i < (layer + 1) * experts; ++i)
        error += std::abs(used[i] - fractions[i]);
      report.estimator_error = std::max(report.estimator_error, error);
    }
  }
  for (const double dropped : sums.dropped) report.dropped.push_back(static_cast<std::int64_t>(dropped));
  return report;
}

}  // namespace conclave
