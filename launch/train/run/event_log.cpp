#include "launch/train/run/event_log.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string_view>

#include "framework/base/error.h"
#include "framework/store/expert_history.h"

namespace conclave {
namespace {

constexpr std::int64_t snapshots_per_run = 100;
constexpr double brightest_load = 3;  // times the even share, in heat maps

/// TensorBoard shows what has the same group together.
std::string group_of(const std::string& name, const BalanceReport& report) {
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (name.starts_with("bytes_") || name.starts_with("wait_seconds_")) return "network";
  if (is({"step_seconds", "tokens_per_second", "model_flops_per_second"})) return "speed";
  const bool of_method = std::any_of(report.others.begin(), report.others.end(),
                                     [&](const BalanceReport::Other& other) { return other.name == name; });
  if (of_method || is({"load_balance_loss", "global_load_balance_loss", "max_load_violation",
                       "max_rank_load_violation", "balance_estimator_error"}))
    return "balance";
  return "train";
}

std::int64_t step_of(const Metrics& line) {
  for (const auto& [name, value] : line)
    if (name == "step") return std::get<std::int64_t>(value);
  check(false, "EventLog: a line without a step came");
  return 0;
}

}  // namespace

EventLog::EventLog(const std::filesystem::path& directory, const Recipe& recipe,
                   std::optional<std::int64_t> resumed_step, std::vector<std::string> domains)
    : file_(directory, resumed_step),
      layers_(count_moe_layers(recipe.model)),
      experts_(recipe.model.moe.num_experts),
      blocks_(moe_blocks(recipe.model)),
      steps_(recipe.training.steps),
      snapshot_interval_(std::max<std::int64_t>(1, recipe.training.steps / snapshots_per_run)),
      domains_(std::move(domains)) {}

std::string EventLog::block_tag(const char* group, std::int64_t layer) const {
  char text[64];
  std::snprintf(text, sizeof text, "%s/block_%02lld", group,
                static_cast<long long>(blocks_[static_cast<std::size_t>(layer)]));
  return text;
}

void EventLog::add_step(const Metrics& line, const BalanceReport& report) {
  const std::vector<std::int64_t>& counts = report.counts;
  EventValues values;
  const std::int64_t step = step_of(line);
  for (const auto& [name, value] : line) {
    if (name == "step") continue;
    const std::string tag = group_of(name, report) + "/" + name;
    if (const auto* whole = std::get_if<std::int64_t>(&value))
      values.scalars.emplace_back(tag, static_cast<double>(*whole));
    else if (const auto* number = std::get_if<double>(&value))
      values.scalars.emplace_back(tag, *number);
    else if (const auto* truth = std::get_if<bool>(&value))
      values.scalars.emplace_back(tag, *truth ? 1 : 0);
  }
  counts_.resize(std::max(counts_.size(), counts.size()));  // a step that was left out has no counts
  std::transform(counts.begin(), counts.end(), counts_.begin(), counts_.begin(), std::plus<>());
  // Not every step is logged: the first one of a new interval shows it.
  if (step / snapshot_interval_ != last_snapshot_ / snapshot_interval_ || step == steps_) {
    add_loads(values);
    last_snapshot_ = step;
  }
  file_.write(step, values);
}

void EventLog::add_loads(EventValues& values) {
  if (counts_.empty()) return;
  const std::vector<double> loads = relative_loads(counts_, experts_);
  for (std::int64_t layer = 0; layer < layers_; ++layer)
    values.histograms.emplace_back(
        block_tag("expert_load", layer),
        std::vector<double>(loads.begin() + layer * experts_, loads.begin() + (layer + 1) * experts_));
  values.pictures.emplace_back("expert_load/blocks_by_experts",
                               heat_map(loads, layers_, experts_, brightest_load));
  std::fill(counts_.begin(), counts_.end(), 0);
}

void EventLog::add_evaluation(std::int64_t step, const std::vector<std::pair<std::string, double>>& losses,
                              const std::vector<std::int64_t>& counts) {
  EventValues values;
  for (const auto& [domain, loss] : losses) {
    values.scalars.emplace_back("validation_loss/" + domain, loss);
    values.scalars.emplace_back("validation_perplexity/" + domain, std::exp(loss));
  }
  const std::vector<double> loads = relative_loads(counts, experts_);
  const auto domains = static_cast<std::int64_t>(domains_.size());
  for (std::int64_t layer = 0; layer < layers_ && !loads.empty(); ++layer) {
    std::vector<double> of_layer;  // [domains, experts]
    for (std::int64_t domain = 0; domain < domains; ++domain) {
      const auto row = loads.begin() + (domain * layers_ + layer) * experts_;
      of_layer.insert(of_layer.end(), row, row + experts_);
    }
    values.pictures.emplace_back(block_tag("domains_by_experts", layer),
                                 heat_map(of_layer, domains, experts_, brightest_load));
  }
  file_.write(step, values);
}

}  // namespace conclave
