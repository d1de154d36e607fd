#include "launch/tools/report/run_report.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "framework/store/lookup.h"
#include "launch/tools/bench/figure.h"
#include "launch/tools/report/expert_maps.h"
#include "launch/tools/report/metrics_table.h"
#include "launch/tools/report/passes_table.h"
#include "launch/tools/report/plan_tables.h"
#include "launch/tools/report/recipe_table.h"
#include "launch/tools/report/run_log.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;

constexpr std::size_t most_time_stretches = 240;
constexpr std::size_t most_profile_bytes = 1 << 18;

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::data, path.string(), " is not there or cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Json to_json(const Series& series) {
  Json y = Json::array();
  for (const double value : series.value) y.push_back(std::isfinite(value) ? Json(value) : Json());
  return {{"x", series.step}, {"y", std::move(y)}};
}

/// Mean seconds per step and purpose in stretches of steps: what rank 0 waited for others, and the rest.
Json time_by_purpose(const MetricsTable& metrics) {
  const auto seconds = metrics.steps.find("step_seconds");
  if (seconds == metrics.steps.end()) return nullptr;
  const Series& all = seconds->second;
  const std::vector<Stretch> parts = stretches(all.size(), most_time_stretches);
  // A purpose is left out of a line where nothing was sent for it, so columns may have gaps.
  const auto sums = [&](const Series& series) {
    std::vector<double> sum(parts.size());
    std::size_t row = 0;
    for (std::size_t i = 0; i < parts.size(); ++i)
      for (; row < series.size() && series.step[row] <= all.step[parts[i].last]; ++row)
        if (std::isfinite(series.value[row])) sum[i] += series.value[row];
    return sum;
  };
  std::vector<double> rest = sums(all);
  std::vector<std::pair<std::string, std::vector<double>>> purposes;
  for (const auto& [name, series] : metrics.steps) {
    constexpr std::string_view start = "wait_seconds_";
    if (!name.starts_with(start)) continue;
    purposes.emplace_back("waiting for " + name.substr(start.size()), sums(series));
    for (std::size_t i = 0; i < rest.size(); ++i)
      rest[i] = std::max(0.0, rest[i] - purposes.back().second[i]);
  }
  purposes.insert(purposes.begin(), {"computing", rest});
  Json json{{"x", Json::array()}, {"parts", Json::object()}};
  for (const Stretch& part : parts) json["x"].push_back(all.step[part.last]);
  for (auto& [name, sum] : purposes) {
    for (std::size_t i = 0; i < parts.size(); ++i)
      sum[i] /= static_cast<double>(parts[i].last - parts[i].first + 1);
    json["parts"][name] = sum;
  }
  return json;
}

const Series* series_of(const MetricsTable& metrics, const std::string& name) {
  const auto found = metrics.steps.find(name);
  return found == metrics.steps.end() || found->second.size() == 0 ? nullptr : &found->second;
}

double sum_of(const Series& series) {
  double sum = 0;
  for (const double value : series.value) sum += std::isfinite(value) ? value : 0;
  return sum;
}

Json median_of(const Series& series) {
  const std::vector<double> values = finite(series.value);
  return values.empty() ? Json() : Json(median(values));
}

/// The run in a few numbers.
Json facts_of(const MetricsTable& metrics, const std::optional<Recipe>& recipe) {
  Json facts = Json::array();
  const auto add = [&](const char* name, const Json& value, const char* unit) {
    facts.push_back({name, value, unit});
  };
  if (recipe)
    add("steps", {metrics.last_step, recipe->training.steps}, "of");
  else
    add("steps", metrics.last_step, "count");
  // With logging.interval above 1 the lines are a sample of the steps.
  const double interval = recipe ? static_cast<double>(recipe->logging.interval) : 1;
  if (const Series* tokens = series_of(metrics, "tokens"))
    add("tokens", interval * sum_of(*tokens), "number");
  if (const Series* loss = series_of(metrics, "lm_loss")) add("training loss", loss->value.back(), "nats");
  if (const auto mean = metrics.validation.find("mean"); mean != metrics.validation.end()) {
    const Series& series = mean->second;
    add("validation loss", series.value.back(), "nats");
    add("perplexity", std::exp(series.value.back()), "number");
  }
  if (const Series* rate = series_of(metrics, "tokens_per_second"))
    add("tokens per second, median", median_of(*rate), "number");
  if (const Series* rate = series_of(metrics, "model_flops_per_second"))
    add("operations per second, median", median_of(*rate), "number");
  if (const Series* seconds = series_of(metrics, "step_seconds"))
    add("time in steps", interval * sum_of(*seconds), "seconds");
  if (metrics.skipped > 0) add("steps skipped, not finite", metrics.skipped, "count");
  return facts;
}

/// Reads one file of the run; what is wrong with it becomes a note.
template <class Read>
void try_reading(Json& notes, Read read) {
  try {
    read();
  } catch (const Error& error) {
    notes.push_back(error.what());
  }
}

void note_broken_lines(const MetricsTable& metrics, Json& notes) {
  if (metrics.last_line_cut)
    notes.push_back("The last line of metrics.jsonl was cut short, as by a crash, and is left out.");
  if (metrics.broken_lines > 0)
    notes.push_back(join_text(counted(metrics.broken_lines, "line"), " of metrics.jsonl cannot be read and ",
                              metrics.broken_lines == 1 ? "is" : "are", " left out."));
}

Json starts_table(const RunLog& log) {
  Json rows = Json::array();
  for (const RunStart& start : log.starts)
    rows.push_back({start.date,
                    start.ranks == 0
                        ? "ended before it began to train"
                        : join_text(counted(start.ranks, "rank"), " x ", counted(start.threads, "thread")),
                    ""});
  return {{"title", "Starts"}, {"rows", rows}};
}

}  // namespace

std::string directory_name(const fs::path& directory) {
  const fs::path path = fs::absolute(directory / "").lexically_normal();
  return path.parent_path().filename().string();
}

RunReport read_run(const fs::path& directory, const RunReportOptions& options) {
  check(is_directory_there(directory), Fault::data, "report: there is no directory ", directory.string());
  check(is_there(directory / "metrics.jsonl") || is_there(directory / "recipe.yaml"), Fault::data,
        "report: ", directory.string(), " holds no run: neither metrics.jsonl nor recipe.yaml is there");
  RunReport report;
  Json& json = report.json;
  json["name"] = directory_name(directory);
  json["directory"] = directory.string();
  Json notes = Json::array(), tables = Json::array();

  std::optional<Recipe> recipe;
  const fs::path recipe_path = directory / "recipe.yaml";
  try_reading(notes, [&] {
    const std::string text = read_text(recipe_path);
    json["recipe"] = text;
    report.keys = flat_keys(text, recipe_path.string());
    recipe = parse_recipe(text, recipe_path.string());
    json["name"] = recipe->name;
  });

  MetricsTable metrics;
  try_reading(notes, [&] { metrics = read_metrics(directory / "metrics.jsonl"); });
  note_broken_lines(metrics, notes);
  json["facts"] = facts_of(metrics, recipe);
  json["series"] = Json::object();
  for (const auto& [name, series] : metrics.steps)
    if (!name.starts_with("wait_seconds_"))
      json["series"][name] = to_json(thinned(series, options.most_points));
  json["domains"] = metrics.domains;
  json["validation"] = Json::object();
  for (const std::string& domain : metrics.domains)
    json["validation"][domain] = to_json(thinned(metrics.validation.at(domain), options.most_points));
  json["time"] = time_by_purpose(metrics);

  try_reading(notes, [&] {
    ExpertMapOptions maps{.most_cells = options.most_cells};
    if (recipe) maps.blocks = moe_blocks(recipe->model);
    if (recipe && recipe->logging.dead_expert_steps > 0) maps.dead_steps = recipe->logging.dead_expert_steps;
    json["dead_steps"] = maps.dead_steps;
    json["experts"] = expert_maps(directory / "experts.h5", maps);
  });

  std::int64_t ranks = 0;
  try_reading(notes, [&] {
    const RunLog log = read_log(directory / "log.txt");
    json["warnings"] = log.warnings;
    json["more_warnings"] = log.more_warnings;
    json["last_lines"] = log.last_lines;
    for (const RunStart& start : log.starts)
      if (start.ranks > 0) ranks = start.ranks;
    if (!log.starts.empty()) tables.push_back(starts_table(log));
  });
  if (recipe)
    try_reading(notes, [&] {
      if (ranks == 0)
        notes.push_back(
            "log.txt does not say on how many ranks the run was started, so there is no plan of layout, "
            "memory and network.");
      for (Json& table : plan_tables(*recipe, static_cast<int>(ranks))) tables.push_back(std::move(table));
    });
  try_reading(notes, [&] {
    if (Json passes = passes_table(directory); !passes.is_null()) tables.push_back(std::move(passes));
  });
  json["tables"] = tables;

  json["profile"] = nullptr;
  if (is_there(directory / "profile.txt"))
    try_reading(
        notes, [&] { json["profile"] = read_text(directory / "profile.txt").substr(0, most_profile_bytes); });
  json["notes"] = notes;
  return report;
}

}  // namespace conclave
