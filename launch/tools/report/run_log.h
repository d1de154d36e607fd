// A run's log.txt tells things that no other file does: when and on how many ranks the run was started, and
// what was wrong.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace conclave {

struct RunStart {
  std::string date;        // as the log has it
  std::int64_t ranks = 0;  // 0: the log ends before it says so
  std::int64_t threads = 0;
};

struct RunLog {
  std::vector<RunStart> starts;       // in order
  std::vector<std::string> warnings;  // and errors, whole lines, the first ones
  std::int64_t more_warnings = 0;     // as many as were left out
  std::vector<std::string> last_lines;
};

/// Throws Fault::data where the file cannot be read.
RunLog read_log(const std::filesystem::path& path);

}  // namespace conclave
