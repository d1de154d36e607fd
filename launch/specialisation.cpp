#include "launch/specialisation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

namespace conclave {
namespace {

/// q(. | d) of one layer: [experts]; zeros for a domain without tokens.
std::vector<double> shares(const DomainResult& result, std::int64_t layer, std::int64_t experts) {
  const auto begin = result.expert_counts.begin() + layer * experts;
  const double total = static_cast<double>(std::accumulate(begin, begin + experts, std::int64_t{0}));
  std::vector<double> q(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < q.size(); ++e)
    q[e] = total > 0 ? static_cast<double>(begin[static_cast<std::ptrdiff_t>(e)]) / total : 0;
  return q;
}

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

}  // namespace

std::vector<LayerSpecialisation> measure_specialisation(const std::vector<DomainResult>& results,
                                                        std::int64_t layers, std::int64_t experts) {
  std::vector<LayerSpecialisation> measured(static_cast<std::size_t>(layers));
  for (std::int64_t layer = 0; layer < layers && !results.empty(); ++layer) {
    LayerSpecialisation& of_layer = measured[static_cast<std::size_t>(layer)];
    std::vector<double> mean(static_cast<std::size_t>(experts));
    for (const DomainResult& result : results) {
      const std::vector<double> q = shares(result, layer, experts);
      for (std::size_t e = 0; e < q.size(); ++e) mean[e] += q[e] / static_cast<double>(results.size());
    }
    for (const double m : mean)
      if (m > 0) of_layer.entropy -= m * std::log(m);
    for (const DomainResult& result : results) {
      const std::vector<double> q = shares(result, layer, experts);
      for (std::size_t e = 0; e < q.size(); ++e) {
        of_layer.largest_share = std::max(of_layer.largest_share, q[e]);
        if (q[e] > 0)
          of_layer.mutual_information +=
              q[e] * std::log(q[e] / mean[e]) / static_cast<double>(results.size());
      }
    }
  }
  return measured;
}

std::string evaluation_tables(const std::vector<DomainResult>& results, std::int64_t layers,
                              std::int64_t experts) {
  std::string text = format("%-20s %12s %10s %12s\n", "domain", "tokens", "loss", "perplexity");
  for (const DomainResult& result : results)
    text += format("%-20s %12lld %10.4f %12.3f\n", result.domain.c_str(),
                   static_cast<long long>(result.target_tokens), result.lm_loss, std::exp(result.lm_loss));
  const double mean = mean_over_domains(results);
  text += format("%-20s %12s %10.4f %12.3f\n", "mean over domains", "", mean, std::exp(mean));
  if (layers == 0) return text;

  text += format("\nSpecialisation over %zu domains (even use: share %.4f, entropy %.4f)\n", results.size(),
                 1.0 / static_cast<double>(experts), std::log(static_cast<double>(experts)));
  text += format("%-8s %20s %15s %10s\n", "layer", "mutual information", "largest share", "entropy");
  const auto measured = measure_specialisation(results, layers, experts);
  for (std::size_t layer = 0; layer < measured.size(); ++layer)
    text += format("%-8zu %20.4f %15.4f %10.4f\n", layer, measured[layer].mutual_information,
                   measured[layer].largest_share, measured[layer].entropy);

  text += "\nMost frequent experts by domain (expert: share of the domain's assignments), last layer\n";
  for (const DomainResult& result : results) {
    const std::vector<double> q = shares(result, layers - 1, experts);
    std::vector<std::size_t> order(q.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return q[a] > q[b]; });
    text += format("%-20s", result.domain.c_str());
    for (std::size_t i = 0; i < std::min<std::size_t>(4, order.size()); ++i)
      text += format("  %3zu: %.3f", order[i], q[order[i]]);
    text += "\n";
  }
  return text;
}

}  // namespace conclave
