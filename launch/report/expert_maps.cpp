#include "launch/report/expert_maps.h"

#include <algorithm>
#include <cmath>

#include "framework/base/error.h"
#include "framework/store/expert_history.h"
#include "framework/store/lookup.h"
#include "launch/report/series.h"
#include "launch/specialisation.h"

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
        {{"block", options.first_block + static_cast<std::int64_t>(i) / history.experts},
         {"expert", static_cast<std::int64_t>(i) % history.experts},
         {"last_step", never ? 0 : history.step[static_cast<std::size_t>(last_chosen[i])]}});
  }
}

/// The counts of one evaluation as evaluate() gives them.
std::vector<DomainResult> results_of(const ExpertHistory& history, std::size_t evaluation) {
  const auto width = static_cast<std::size_t>(history.layers * history.experts);
  std::vector<DomainResult> results;
  for (std::size_t domain = 0; domain < history.domains.size(); ++domain) {
    const auto begin = history.evaluation_counts.begin() +
                       static_cast<std::ptrdiff_t>((evaluation * history.domains.size() + domain) * width);
    results.push_back({.domain = history.domains[domain],
                       .expert_counts = {begin, begin + static_cast<std::ptrdiff_t>(width)}});
  }
  return results;
}

void add_domains(const ExpertHistory& history, const ExpertMapOptions& options, Json& json) {
  const std::size_t evaluations = history.evaluation_step.size();
  const auto layers = static_cast<std::size_t>(history.layers);
  std::vector<Json> information(layers, Json::array());
  Json steps = Json::array();
  for (const Stretch& stretch : stretches(evaluations, most_stretches)) {
    steps.push_back(history.evaluation_step[stretch.last]);
    const auto measured =
        measure_specialisation(results_of(history, stretch.last), history.layers, history.experts);
    for (std::size_t layer = 0; layer < layers; ++layer)
      information[layer].push_back(measured[layer].mutual_information);
  }
  json["information"] = {{"steps", steps}, {"blocks", information}};

  const std::vector<DomainResult> last = results_of(history, evaluations - 1);
  const auto measured = measure_specialisation(last, history.layers, history.experts);
  json["domains"] = history.domains;
  json["evaluation_step"] = history.evaluation_step.back();
  json["domain_loads"] = Json::array();
  json["specialisation"] = Json::array();
  for (std::size_t layer = 0; layer < layers; ++layer) {
    Json of_layer = Json::array();
    for (const DomainResult& result : last)
      of_layer.push_back(
          thousandths(result.expert_counts, history.experts, static_cast<std::int64_t>(layer)));
    json["domain_loads"].push_back(of_layer);
    json["specialisation"].push_back({{"block", options.first_block + static_cast<std::int64_t>(layer)},
                                      {"mutual_information", measured[layer].mutual_information},
                                      {"largest_share", measured[layer].largest_share},
                                      {"entropy", measured[layer].load_entropy}});
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
    json["blocks"].push_back(options.first_block + layer);
  json["experts"] = history.experts;
  if (history.layers == 0) return json;
  add_loads(reader, options, json);
  if (!history.evaluation_step.empty() && !history.domains.empty()) add_domains(history, options, json);
  return json;
}

}  // namespace conclave
