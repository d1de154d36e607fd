#include "launch/specialisation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

/// q(. | d) of one layer: [experts]; zeros for a domain without tokens.
std::vector<double> shares(const DomainResult& result, std::int64_t layer, std::int64_t experts) {
  const auto begin = result.expert_counts.begin() + layer * experts;
  const double total = static_cast<double>(std::accumulate(begin, begin + experts, std::int64_t{0}));
  std::vector<double> q(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < q.size(); ++e)
    q[e] = total > 0 ? static_cast<double>(begin[static_cast<std::ptrdiff_t>(e)]) / total : 0;
  return q;
}

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

Json number_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

/// values [rows, columns] as rows.
template <class T>
Json rows_of(const std::vector<T>& values, std::int64_t rows) {
  Json json = Json::array();
  const std::size_t columns = rows > 0 ? values.size() / static_cast<std::size_t>(rows) : 0;
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    Json of_row = Json::array();
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i) {
      if constexpr (std::is_integral_v<T>)
        of_row.push_back(values[i]);
      else
        of_row.push_back(number_or_null(values[i]));
    }
    json.push_back(of_row);
  }
  return json;
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
  const auto domains = static_cast<double>(results.size());
  for (std::int64_t layer = 0; layer < layers && !results.empty(); ++layer) {
    LayerSpecialisation& of_layer = measured[static_cast<std::size_t>(layer)];
    std::vector<std::vector<double>> q;
    for (const DomainResult& result : results) q.push_back(shares(result, layer, experts));
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

namespace {

std::string loss_table(const std::vector<DomainResult>& results) {
  std::string text = format("%-20s %12s %10s %12s\n", "domain", "tokens", "loss", "perplexity");
  for (const DomainResult& result : results)
    text += format("%-20s %12lld %10.4f %12.3f\n", result.domain.c_str(),
                   static_cast<long long>(result.target_tokens), result.lm_loss, std::exp(result.lm_loss));
  const double mean = mean_over_domains(results);
  return text + format("%-20s %12s %10.4f %12.3f\n", "mean over domains", "", mean, std::exp(mean));
}

std::string frequent_experts_table(const std::vector<DomainResult>& results,
                                   const EvaluationContext& context) {
  std::string text =
      "\nMost frequent experts by domain (expert: share of the domain's assignments), last layer\n";
  for (const DomainResult& result : results) {
    const std::vector<double> q = shares(result, context.layers - 1, context.experts);
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

}  // namespace

std::string evaluation_tables(const std::vector<DomainResult>& results, const EvaluationContext& context) {
  std::string text = loss_table(results);
  if (context.layers == 0) return text;

  const auto experts = static_cast<double>(context.experts);
  text +=
      format("\nSpecialisation over %zu domains (even use: share %.4f, score sum %.4f, entropies %.4f)\n",
             results.size(), 1 / experts, static_cast<double>(context.top_k) / experts, std::log(experts));
  text += format("%-6s %19s %14s %13s %10s %16s %8s\n", "layer", "mutual information", "largest share",
                 "load entropy", "score sum", "routing entropy", "overlap");
  const auto measured = measure_specialisation(results, context.layers, context.experts);
  for (std::size_t layer = 0; layer < measured.size(); ++layer) {
    const LayerSpecialisation& of_layer = measured[layer];
    text +=
        format("%-6zu %19.4f %14.4f %13.4f %10.4f %16.4f", layer, of_layer.mutual_information,
               of_layer.largest_share, of_layer.load_entropy, of_layer.score_sum, of_layer.routing_entropy);
    text +=
        std::isnan(of_layer.mean_overlap) ? format(" %8s\n", "-") : format(" %8.4f\n", of_layer.mean_overlap);
  }
  return text + frequent_experts_table(results, context);
}

Json evaluation_json(const std::vector<DomainResult>& results, const EvaluationContext& context) {
  const auto domains = static_cast<std::int64_t>(results.size());
  const auto experts = static_cast<double>(context.experts);
  const double mean = mean_over_domains(results);
  Json json{{"checkpoint", context.checkpoint},
            {"mean_lm_loss", number_or_null(mean)},
            {"mean_perplexity", number_or_null(std::exp(mean))},
            {"experts", context.layers > 0 ? context.experts : 0},
            {"top_k", context.layers > 0 ? context.top_k : 0},
            {"domains", Json::array()},
            {"layers", Json::array()}};
  for (const DomainResult& result : results)
    json["domains"].push_back({{"domain", result.domain},
                               {"target_tokens", result.target_tokens},
                               {"tokens", result.tokens},
                               {"lm_loss", number_or_null(result.lm_loss)},
                               {"perplexity", number_or_null(std::exp(result.lm_loss))},
                               {"counts", rows_of(result.expert_counts, context.layers)},
                               {"mean_probability", rows_of(result.mean_probability, context.layers)},
                               {"score_sum", result.score_sum},
                               {"entropy", result.entropy}});
  if (context.layers == 0) return json;
  json["even_use"] = {{"share", 1 / experts},
                      {"score_sum", static_cast<double>(context.top_k) / experts},
                      {"entropy", std::log(experts)}};
  json["frequent_share"] = frequent_share / experts;
  const auto measured = measure_specialisation(results, context.layers, context.experts);
  for (std::size_t layer = 0; layer < measured.size(); ++layer) {
    const LayerSpecialisation& of_layer = measured[layer];
    json["layers"].push_back({{"block", context.first_block + static_cast<std::int64_t>(layer)},
                              {"mutual_information", of_layer.mutual_information},
                              {"largest_share", of_layer.largest_share},
                              {"load_entropy", of_layer.load_entropy},
                              {"score_sum", number_or_null(of_layer.score_sum)},
                              {"routing_entropy", number_or_null(of_layer.routing_entropy)},
                              {"mean_overlap", number_or_null(of_layer.mean_overlap)},
                              {"overlap", rows_of(of_layer.overlap, domains)}});
  }
  return json;
}

std::string comparison_table(const std::vector<DomainResult>& results,
                             const std::vector<DomainResult>& others) {
  std::string text = format("%-20s %12s %10s %10s %10s\n", "domain", "tokens", "loss", "other", "difference");
  const auto line = [&text](const std::string& name, const std::string& tokens, double loss, double other) {
    text +=
        format("%-20s %12s %10.4f %10.4f %+10.4f\n", name.c_str(), tokens.c_str(), loss, other, other - loss);
  };
  for (std::size_t i = 0; i < results.size(); ++i)
    line(results[i].domain, std::to_string(results[i].target_tokens), results[i].lm_loss, others[i].lm_loss);
  line("mean over domains", "", mean_over_domains(results), mean_over_domains(others));
  return text;
}

Json comparison_json(const std::vector<DomainResult>& results, const std::vector<DomainResult>& others) {
  Json json{{"domains", Json::array()},
            {"mean_lm_loss", number_or_null(mean_over_domains(others) - mean_over_domains(results))}};
  for (std::size_t i = 0; i < results.size(); ++i)
    json["domains"].push_back(
        {{"domain", results[i].domain}, {"lm_loss", number_or_null(others[i].lm_loss - results[i].lm_loss)}});
  return json;
}

}  // namespace conclave
