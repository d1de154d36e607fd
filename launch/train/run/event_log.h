// EventLog: what a run tells TensorBoard. Every number of metrics.jsonl as a scalar; about a hundred times in
// a run, how evenly the experts of each block were loaded, as histograms and one heat map; at each
// evaluation, which experts each domain chose. Written by rank 0 alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "framework/telemetry/metrics.h"
#include "framework/telemetry/tensorboard/event_file.h"
#include "launch/train/recipe.h"
#include "layers/moe/balance_report.h"

namespace conclave {

class EventLog {
 public:
  /// `resumed_step`: see EventFile. `domains`: of the evaluations, in order.
  EventLog(const std::filesystem::path& directory, const Recipe& recipe,
           std::optional<std::int64_t> resumed_step, std::vector<std::string> domains);

  /// A step's line of metrics.jsonl, and how many tokens each expert received: [layers, experts], or nothing.
  void add_step(const Metrics& line, const BalanceReport& report);
  /// An evaluation's losses by domain, and [domains, layers, experts], or nothing.
  void add_evaluation(std::int64_t step, const std::vector<std::pair<std::string, double>>& losses,
                      const std::vector<std::int64_t>& counts);

 private:
  void add_loads(EventValues& values);
  std::string block_tag(const char* group, std::int64_t layer) const;

  EventFile file_;
  std::int64_t layers_, experts_;
  std::vector<std::int64_t> blocks_;  // of the layers with experts
  std::int64_t steps_, snapshot_interval_, last_snapshot_ = 0;
  std::vector<std::string> domains_;
  std::vector<std::int64_t> counts_;  // since the last snapshot
};

}  // namespace conclave
