// metrics.jsonl has one JSON object per line, with numbers in full precision. Each line is whole on disk once
// write() returns.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace conclave {

using MetricValue = std::variant<std::int64_t, double, std::string, bool, std::vector<std::int64_t>>;

/// One line: names and values in the order in which they are written.
using Metrics = std::vector<std::pair<std::string, MetricValue>>;

/// The line without its end. Doubles take the shortest text that reads back exactly; NaN and infinities,
/// which JSON does not know, become null.
std::string to_json(const Metrics& metrics);

/// The whole number that the line has under "step", or nothing.
std::optional<std::int64_t> step_of_line(std::string_view line);

class MetricsWriter {
 public:
  /// Without a resumed step the file starts empty, and one that has content is refused, never written over.
  /// With a resumed step, lines of later steps are dropped, since the resumed run writes them again. A last
  /// line that was cut short is dropped, too; the rest stays as it is. A link is not followed. Fault::request
  /// where the file cannot be written.
  explicit MetricsWriter(std::string path, std::optional<std::int64_t> resumed_step = std::nullopt);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Appends one line; Fault::machine where the disk refuses it.
  void write(const Metrics& metrics);
  /// How many whole lines the resumed step has cost.
  std::int64_t dropped_lines() const { return dropped_lines_; }

 private:
  void drop_lines_after(std::int64_t step);

  std::string path_;
  std::int64_t dropped_lines_ = 0;
  int file_ = -1;
};

}  // namespace conclave
