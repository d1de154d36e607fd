#include "launch/tools/report/expert_maps.h"

#include <algorithm>
#include <cmath>

#include "framework/base/error.h"
#include "framework/store/expert_history.h"
#include "framework/store/lookup.h"
#include "launch/tools/report/evaluation_report.h"
#include "launch/tools/report/series.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t most_stretches = 240;          // no screen shows more columns apart
constexpr std::int64_t numbers_at_once = 4'000'000;  // 32 MB

/// counts [layers, experts] as loads, row by row.
Json thousandths(const std::vector<std::int64_t>& counts, std::int64_t experts, std::int64_t layer) {
  Json row = Json::array();
  const std::vector<std::int64_t> own(counts.begin() + layer * experts,
                                      counts.begin() + (layer + 1) * experts);
  for (const double load : relative_loads(own, experts)) row.push_back(std::lround(1000 * load));
  return row;
}

std::int64_t block_of(const ExpertMapOptions& options, std::int64_t layer) {
  return options.blocks.empty() ? layer : options.blocks.at(static_cast<std::size_t>(layer));
}

/// Adds up stretches of steps, and notes when each expert was chosen last.
void add_loads(const ExpertHistoryReader& reader, const ExpertMapOptions& options, Json& json) {
  const ExpertHistory& history = reader.overview();
  const auto width = static_cast<std::size_t>(history.layers * history.experts);
  const std::size_t columns = std::clamp<std::size_t>(options.most_cells / width, 12, most_stretches);
  const std::int64_t rows_at_once =
      std::max<std::int64_t>(1, numbers_at_once / static_cast<std::int64_t>(width));
  std::vector<std::int64_t> last_chosen(width, -1);  // row, not step
  Json steps = Json::array();
  std::vector<Json> loads(static_cast<std::size_t>(history.layers), Json::array());
  for (const Stretch& stretch : stretches(history.step.size(), columns)) {
    std::vector<std::int64_t> sums(width);
    for (auto row = static_cast<std::int64_t>(stretch.first);
         row <= static_cast<std::int64_t>(stretch.last);) {
      const std::int64_t rows = std::min(rows_at_once, static_cast<std::int64_t>(stretch.last) + 1 - row);
      const std::vector<std::int64_t> counts = reader.counts(row, rows);
      for (std::size_t i = 0; i < counts.size(); ++i) {
        sums[i % width] += counts[i];
        if (counts[i] > 0) last_chosen[i % width] = row + static_cast<std::int64_t>(i / width);
      }
      row += rows;
    }
    steps.push_back({history.step[stretch.first], history.step[stretch.last]});
    for (std::int64_t layer = 0; layer < history.layers; ++layer)
      loads[static_cast<std::size_t>(layer)].push_back(thousandths(sums, history.experts, layer));
  }
  json["steps"] = steps;
  json["loads"] = loads;
  json["dead"] = Json::array();
  const auto rows = static_cast<std::int64_t>(history.step.size());
  for (std::size_t i = 0; i < width; ++i) {
    const bool never = last_chosen[i] < 0;
    if (rows == 0 || (!never && rows - 1 - last_chosen[i] < options.dead_steps)) continue;
    json["dead"].push_back(
        {{"block", block_of(options, static_cast<std::int64_t>(i) / history.experts)},
         {"expert", static_cast<std::int64_t>(i) % history.experts},
         {"last_step", never ? 0 : history.step[static_cast<std::size_t>(last_chosen[i])]}});
  }
}

/// One row of an array with rows of this width.
template <class T>
std::vector<T> part(const std::vector<T>& values, std::size_t row, std::size_t width) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}

Json thousandths_or_null(double value) {
  return std::isfinite(value) ? Json(std::lround(1000 * value)) : Json();
}

/// The results of one evaluation of a run, as evaluate() gives them; losses are in metrics.jsonl. Domains
/// that the run did not have at that time are left out.
std::vector<DomainResult> results_of(const ExpertHistory& history, std::size_t evaluation) {
  const auto layers = static_cast<std::size_t>(history.layers),
             width = layers * static_cast<std::size_t>(history.experts);
  std::vector<DomainResult> results;
  for (std::size_t domain = 0; domain < history.domains.size(); ++domain) {
    const std::size_t row = evaluation * history.domains.size() + domain;
    if (history.evaluation_counts[row * width] < 0) continue;
    DomainResult& result = results.emplace_back();
    result.domain = history.domains[domain];
    result.expert_counts = part(history.evaluation_counts, row, width);
    if (!history.evaluation_score_sum.empty()) {
      result.score_sum = part(history.evaluation_score_sum, row, layers);
      result.entropy = part(history.evaluation_entropy, row, layers);
    }
  }
  return results;
}

/// How the measures went from evaluation to evaluation.
void add_measures_over_time(const ExpertHistory& history, Json& json) {
  const auto layers = static_cast<std::size_t>(history.layers);
  const bool has_scores = !history.evaluation_score_sum.empty();
  std::vector<Json> information(layers, Json::array()), score_sums = information, entropies = information;
  Json steps = Json::array();
  for (const Stretch& stretch : stretches(history.evaluation_step.size(), most_stretches)) {
    steps.push_back(history.evaluation_step[stretch.last]);
    const auto measured =
        measure_specialisation(results_of(history, stretch.last), history.layers, history.experts);
    for (std::size_t layer = 0; layer < layers; ++layer) {
      information[layer].push_back(measured[layer].mutual_information);
      score_sums[layer].push_back(number_or_null(measured[layer].score_sum));
      entropies[layer].push_back(number_or_null(measured[layer].routing_entropy));
    }
  }
  json["information"] = {{"steps", steps}, {"blocks", information}};
  if (has_scores)
    json["sharpness"] = {{"steps", steps}, {"score_sums", score_sums}, {"entropies", entropies}};
}

void add_domains(const ExpertHistory& history, const ExpertMapOptions& options, Json& json) {
  const auto layers = static_cast<std::size_t>(history.layers);
  const bool has_scores = !history.evaluation_score_sum.empty();
  add_measures_over_time(history, json);

  const std::vector<DomainResult> last = results_of(history, history.evaluation_step.size() - 1);
  const std::size_t domains = last.size();
  const auto measured = measure_specialisation(last, history.layers, history.experts);
  json["domains"] = Json::array();
  for (const DomainResult& result : last) json["domains"].push_back(result.domain);
  json["evaluation_step"] = history.evaluation_step.back();
  for (const char* name : {"domain_loads", "overlaps", "specialisation"}) json[name] = Json::array();
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const LayerSpecialisation& of_layer = measured[layer];
    Json loads = Json::array(), overlaps = Json::array();
    for (std::size_t domain = 0; domain < domains; ++domain) {
      loads.push_back(
          thousandths(last[domain].expert_counts, history.experts, static_cast<std::int64_t>(layer)));
      Json row = Json::array();
      for (const double overlap : part(of_layer.overlap, domain, domains))
        row.push_back(thousandths_or_null(overlap));
      overlaps.push_back(row);
    }
    json["domain_loads"].push_back(loads);
    json["overlaps"].push_back(overlaps);
    json["specialisation"].push_back(
        {{"block", block_of(options, static_cast<std::int64_t>(layer))},
         {"mutual_information", of_layer.mutual_information},
         {"largest_share", of_layer.largest_share},
         {"load_entropy", of_layer.load_entropy},
         {"score_sum", has_scores ? number_or_null(of_layer.score_sum) : Json()},
         {"routing_entropy", has_scores ? number_or_null(of_layer.routing_entropy) : Json()},
         {"mean_overlap", number_or_null(of_layer.mean_overlap)}});
  }
  if (!has_scores) return;
  const double even = std::log(static_cast<double>(history.experts));
  for (const char* name : {"domain_score_sums", "domain_entropies"}) json[name] = Json::array();
  for (const DomainResult& result : last) {
    Json score_sums = Json::array(), entropies = Json::array();
    for (std::size_t layer = 0; layer < layers; ++layer) {
      score_sums.push_back(thousandths_or_null(result.score_sum[layer]));
      entropies.push_back(thousandths_or_null(even > 0 ? result.entropy[layer] / even : 0));
    }
    json["domain_score_sums"].push_back(score_sums);
    json["domain_entropies"].push_back(entropies);
  }
}

}  // namespace

Json expert_maps(const std::filesystem::path& path, const ExpertMapOptions& options) {
  check(is_there(path), Fault::data, path.string(), " is not there");
  const ExpertHistoryReader reader(path);
  const ExpertHistory& history = reader.overview();
  Json json;
  json["blocks"] = Json::array();
  for (std::int64_t layer = 0; layer < history.layers; ++layer)
    json["blocks"].push_back(block_of(options, layer));
  json["experts"] = history.experts;
  if (history.layers == 0) return json;
  add_loads(reader, options, json);
  if (!history.evaluation_step.empty() && !history.domains.empty()) add_domains(history, options, json);
  return json;
}

}  // namespace conclave
