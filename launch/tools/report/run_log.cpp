#include "launch/tools/report/run_log.h"

#include <fstream>
#include <regex>

#include "framework/base/error.h"

namespace conclave {
namespace {

constexpr std::size_t most_warnings = 100, most_last_lines = 12, longest_line = 2000;

}  // namespace

RunLog read_log(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::data, path.string(), " is not there or cannot be read");
  // "[     0.1 s] 2 ranks with 1 thread each", as TrainingRun::describe writes it.
  static const std::regex ranks(R"(\[ *[0-9.]+ s\] (\d{1,9}) ranks? with (\d{1,9}) threads? each)");
  static const std::regex complaint(R"(\[ *[0-9.]+ s\] (\[rank \d+\] )?(warning|error): )");
  RunLog log;
  for (std::string line; std::getline(file, line);) {
    if (line.size() > longest_line) line.resize(longest_line);
    std::smatch match;
    if (line.starts_with("---- ")) {
      log.starts.push_back({.date = line.substr(5)});
    } else if (!log.starts.empty() && log.starts.back().ranks == 0 &&
               std::regex_search(line, match, ranks, std::regex_constants::match_continuous)) {
      log.starts.back().ranks = std::stoll(match[1]);
      log.starts.back().threads = std::stoll(match[2]);
    }
    if (std::regex_search(line, complaint, std::regex_constants::match_continuous)) {
      if (log.warnings.size() < most_warnings)
        log.warnings.push_back(line);
      else
        ++log.more_warnings;
    }
    log.last_lines.push_back(line);
    if (log.last_lines.size() > most_last_lines) log.last_lines.erase(log.last_lines.begin());
  }
  return log;
}

}  // namespace conclave
