#include "launch/train/evaluation_lines.h"

#include <fstream>
#include <string>

#include "framework/data/recipe.h"
#include "framework/store/durable_file.h"
#include "framework/telemetry/metrics.h"

namespace conclave {

bool keep_whole_evaluation(const std::filesystem::path& metrics, std::int64_t step) {
  std::ifstream file(metrics, std::ios::binary);
  const std::string of_mean = std::string("\"domain\": \"") + mean_of_domains + "\"";
  std::string kept;
  bool is_whole = false, has_lines = false, has_rest = false;
  for (std::string line; std::getline(file, line);) {
    has_lines = true;
    const bool is_its_own = step_of_line(line) == step && line.find("\"split\": ") != std::string::npos;
    // A line that was cut short has no end of its own, nor does the mean before it count.
    if (is_its_own && !file.eof() && line.find(of_mean) != std::string::npos) is_whole = true;
    has_rest = has_rest || is_its_own;
    if (!is_its_own) kept += line + (file.eof() ? "" : "\n");
  }
  if (!is_whole && has_rest) write_text_durably(metrics, kept);
  return is_whole || !has_lines;
}

}  // namespace conclave
