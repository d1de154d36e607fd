#include "launch/tools/report/metrics_table.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "framework/base/error.h"

namespace conclave {
namespace {

using Json = nlohmann::json;

void append(Series& series, std::int64_t step, double value) {
  series.step.push_back(step);
  series.value.push_back(value);
}

/// null is what metrics.jsonl has for NaN and infinities.
double number_of(const Json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// False where the line says nothing that the table has a place for.
bool add_line(const Json& line, MetricsTable& table) {
  const auto at = line.find("step");
  if (at == line.end() || !at->is_number_integer()) return false;
  const auto step = at->get<std::int64_t>();
  if (const auto domain = line.find("domain"); domain != line.end()) {
    if (!domain->is_string()) return false;
    const auto name = domain->get<std::string>();
    if (!table.validation.contains(name)) table.domains.push_back(name);
    append(table.validation[name], step, number_of(line.value("lm_loss", Json())));
    return true;
  }
  for (const auto& [name, value] : line.items()) {
    if (name == "step" || name == "skipped" || !(value.is_number() || value.is_null())) continue;
    append(table.steps[name], step, number_of(value));
  }
  if (line.value("skipped", Json()) == Json(true)) ++table.skipped;
  table.last_step = std::max(table.last_step, step);
  return true;
}

}  // namespace

MetricsTable read_metrics(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::data, path.string(), " is not there or cannot be read");
  MetricsTable table;
  for (std::string text; std::getline(file, text);) {
    if (text.empty()) continue;
    const Json line = Json::parse(text, nullptr, false);
    const bool whole = line.is_object() && add_line(line, table);
    if (whole) continue;
    if (file.eof())  // no end of line behind it
      table.last_line_cut = true;
    else
      ++table.broken_lines;
  }
  check(!file.bad(), Fault::data, path.string(), " cannot be read to its end");
  return table;
}

}  // namespace conclave
