// RunReport: everything that the report tells of one run, as the JSON that its page reads. Anything that a
// run directory lacks, or has in a broken state, becomes a sentence in "notes"; the rest is told all the
// same.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace conclave {

struct RunReport {
  /// {"name", "directory", "notes": [sentence...],
  ///  "facts": [[name, value, unit]...],
  ///  "series": {name: {"x": [step...], "y": [number or null...]}...},
  ///  "validation": {domain: {"x", "y"}...}, "domains": [name...],
  ///  "time": {"x": [last step of a stretch...], "parts": {purpose: [seconds per step...]}},
  ///  "experts": see expert_maps.h, "tables": [{"title", "rows": [[name, value, unit]...]}...],
  ///  "recipe", "profile": text or null, "warnings": [line...], "last_lines": [line...]}
  /// Units: "count", "number", "bytes", "seconds", "nats", "of" for two
  /// counts, "" for what is shown as it is.
  nlohmann::ordered_json json;
  std::vector<std::pair<std::string, std::string>> keys;  // of the recipe, flat
};

struct RunReportOptions {
  std::size_t most_points = 2000;    // of each curve
  std::size_t most_cells = 250'000;  // of heat maps over time
};

/// Returns the last part of a path, also of "runs/a/" and ".".
std::string directory_name(const std::filesystem::path& directory);

/// Throws Fault::data where the directory holds nothing of a run.
RunReport read_run(const std::filesystem::path& directory, const RunReportOptions& options);

}  // namespace conclave
