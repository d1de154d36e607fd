#include "launch/train/specialisation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace conclave {
namespace {

/// Frequent experts of two domains, q(. | d) of each: how many are in both sets over how many are in either.
double jaccard(const std::vector<double>& a, const std::vector<double>& b) {
  // Shares are quotients of integers: a hair below the bound is on it.
  const double least = frequent_share / static_cast<double>(a.size()) * (1 - 1e-12);
  int both = 0, either = 0;
  for (std::size_t e = 0; e < a.size(); ++e) {
    both += a[e] >= least && b[e] >= least;
    either += a[e] >= least || b[e] >= least;
  }
  return either == 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(both) / either;
}

/// The mean of those that are numbers; NaN without any.
double mean_of_numbers(const std::vector<double>& values) {
  double sum = 0;
  int count = 0;
  for (const double value : values)
    if (!std::isnan(value)) {
      sum += value;
      ++count;
    }
  return count == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / count;
}

}  // namespace

std::vector<double> assignment_shares(const DomainResult& result, std::int64_t layer, std::int64_t experts) {
  const auto begin = result.expert_counts.begin() + layer * experts;
  const double total = static_cast<double>(std::accumulate(begin, begin + experts, std::int64_t{0}));
  std::vector<double> q(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < q.size(); ++e)
    q[e] = total > 0 ? static_cast<double>(begin[static_cast<std::ptrdiff_t>(e)]) / total : 0;
  return q;
}

std::vector<LayerSpecialisation> measure_specialisation(const std::vector<DomainResult>& results,
                                                        std::int64_t layers, std::int64_t experts) {
  std::vector<LayerSpecialisation> measured(static_cast<std::size_t>(layers));
  const auto domains = static_cast<double>(results.size());
  for (std::int64_t layer = 0; layer < layers && !results.empty(); ++layer) {
    LayerSpecialisation& of_layer = measured[static_cast<std::size_t>(layer)];
    std::vector<std::vector<double>> q;
    for (const DomainResult& result : results) q.push_back(assignment_shares(result, layer, experts));
    std::vector<double> mean(static_cast<std::size_t>(experts));
    for (const std::vector<double>& of_domain : q)
      for (std::size_t e = 0; e < mean.size(); ++e) mean[e] += of_domain[e] / domains;
    for (const double m : mean)
      if (m > 0) of_layer.load_entropy -= m * std::log(m);
    for (const std::vector<double>& of_domain : q)
      for (std::size_t e = 0; e < mean.size(); ++e) {
        of_layer.largest_share = std::max(of_layer.largest_share, of_domain[e]);
        if (of_domain[e] > 0)
          of_layer.mutual_information += of_domain[e] * std::log(of_domain[e] / mean[e]) / domains;
      }
    for (const DomainResult& result : results) {
      if (result.score_sum.empty()) continue;
      of_layer.score_sum += result.score_sum[static_cast<std::size_t>(layer)] / domains;
      of_layer.routing_entropy += result.entropy[static_cast<std::size_t>(layer)] / domains;
    }
    std::vector<double> pairs;
    for (std::size_t a = 0; a < q.size(); ++a)
      for (std::size_t b = 0; b < q.size(); ++b) {
        of_layer.overlap.push_back(jaccard(q[a], q[b]));
        if (a < b) pairs.push_back(of_layer.overlap.back());
      }
    of_layer.mean_overlap = mean_of_numbers(pairs);
  }
  return measured;
}

}  // namespace conclave
