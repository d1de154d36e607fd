#include "launch/tools/report/evaluation_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "framework/base/text.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

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

/// `pattern` is for a number and as wide as `width`, which a dash takes where there is none.
std::string number_or_dash(const char* pattern, int width, double value) {
  return std::isnan(value) ? format("%*s", width, "-") : format(pattern, value);
}

std::string loss_table(const std::vector<DomainResult>& results) {
  std::string text = format("%-20s %12s %10s %12s\n", "domain", "tokens", "loss", "perplexity");
  for (const DomainResult& result : results)
    text += format("%-20s %12lld ", result.domain.c_str(), static_cast<long long>(result.target_tokens)) +
            number_or_dash("%10.4f", 10, result.lm_loss) +
            number_or_dash(" %12.3f", 13, std::exp(result.lm_loss)) + "\n";
  const double mean = mean_over_domains(results);
  text += format("%-20s %12s ", "mean over domains", "") + number_or_dash("%10.4f", 10, mean) +
          number_or_dash(" %12.3f", 13, std::exp(mean)) + "\n";
  const std::string left_out = domains_without_targets(results);
  return left_out.empty() ? text : text + left_out + "\n";
}

std::string frequent_experts_table(const std::vector<DomainResult>& results,
                                   const EvaluationContext& context) {
  std::string text =
      "\nMost frequent experts by domain (expert: share of the domain's assignments), last layer\n";
  for (const DomainResult& result : results) {
    const std::vector<double> q = assignment_shares(result, context.layers() - 1, context.experts);
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

Json number_or_null(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

std::string evaluation_tables(const std::vector<DomainResult>& results, const EvaluationContext& context) {
  std::string text = loss_table(results);
  if (context.layers() == 0) return text;

  const auto experts = static_cast<double>(context.experts);
  text += format("\nSpecialisation over %s (even use: share %.4f, score sum %.4f, entropies %.4f)\n",
                 counted(static_cast<std::int64_t>(results.size()), "domain").c_str(), 1 / experts,
                 static_cast<double>(context.top_k) / experts, std::log(experts));
  text += format("%-6s %19s %14s %13s %10s %16s %8s\n", "block", "mutual information", "largest share",
                 "load entropy", "score sum", "routing entropy", "overlap");
  const auto measured = measure_specialisation(results, context.layers(), context.experts);
  for (std::size_t layer = 0; layer < measured.size(); ++layer) {
    const LayerSpecialisation& of_layer = measured[layer];
    text += format("%-6lld %19.4f %14.4f %13.4f %10.4f %16.4f", static_cast<long long>(context.blocks[layer]),
                   of_layer.mutual_information, of_layer.largest_share, of_layer.load_entropy,
                   of_layer.score_sum, of_layer.routing_entropy);
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
            {"experts", context.layers() > 0 ? context.experts : 0},
            {"top_k", context.layers() > 0 ? context.top_k : 0},
            {"domains", Json::array()},
            {"layers", Json::array()}};
  for (const DomainResult& result : results)
    json["domains"].push_back({{"domain", result.domain},
                               {"target_tokens", result.target_tokens},
                               {"tokens", result.tokens},
                               {"lm_loss", number_or_null(result.lm_loss)},
                               {"perplexity", number_or_null(std::exp(result.lm_loss))},
                               {"counts", rows_of(result.expert_counts, context.layers())},
                               {"mean_probability", rows_of(result.mean_probability, context.layers())},
                               {"score_sum", result.score_sum},
                               {"entropy", result.entropy}});
  if (context.layers() == 0) return json;
  json["even_use"] = {{"share", 1 / experts},
                      {"score_sum", static_cast<double>(context.top_k) / experts},
                      {"entropy", std::log(experts)}};
  json["frequent_share"] = frequent_share / experts;
  const auto measured = measure_specialisation(results, context.layers(), context.experts);
  for (std::size_t layer = 0; layer < measured.size(); ++layer) {
    const LayerSpecialisation& of_layer = measured[layer];
    json["layers"].push_back({{"block", context.blocks[layer]},
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
    text += format("%-20s %12s ", name.c_str(), tokens.c_str()) + number_or_dash("%10.4f", 10, loss) +
            number_or_dash(" %10.4f", 11, other) + number_or_dash(" %+10.4f", 11, other - loss) + "\n";
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
