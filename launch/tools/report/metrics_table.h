// MetricsTable: metrics.jsonl as columns. It takes what a run has left, also one that died while it wrote.
// Lines that are no JSON are counted and left out.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "launch/tools/report/series.h"

namespace conclave {

struct MetricsTable {
  std::map<std::string, Series> steps;       // by name, of the lines of steps
  std::vector<std::string> domains;          // of the evaluations, in their order
  std::map<std::string, Series> validation;  // lm_loss by domain
  std::int64_t last_step = 0;                // 0: no step was logged
  std::int64_t skipped = 0;                  // steps whose numbers were not finite
  std::int64_t broken_lines = 0;             // but for the last one
  bool last_line_cut = false;                // a crash came before its end
};

/// Throws Fault::data where the file cannot be read at all.
MetricsTable read_metrics(const std::filesystem::path& path);

}  // namespace conclave
