#include "tests/structure/include_order.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "framework/base/error.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// The folders that each folder may include beside itself; everything listed below a folder is spelled out,
/// nothing is implied.
const std::map<std::string, std::set<std::string>>& allowed_folders() {
  static const std::map<std::string, std::set<std::string>> table = [] {
    const std::set<std::string> framework = {
        "framework/base",    "framework/device",   "framework/tensor",
        "framework/kernels", "framework/autograd", "framework/recipe",
        "framework/data",    "framework/store",    "framework/telemetry"};
    const auto and_above = [](std::set<std::string> below, std::initializer_list<std::string> more) {
      below.insert(more.begin(), more.end());
      return below;
    };
    const std::set<std::string> parallel = and_above(framework, {"parallel"});
    const std::set<std::string> house = and_above(parallel, {"layers", "layers/moe", "optim"});
    const std::set<std::string> plan = and_above(house, {"launch/train"});
    const std::set<std::string> tools = and_above(plan, {"launch/train/run", "launch/plan"});
    const std::set<std::string> everything =
        and_above(tools, {"launch/tools/bench", "launch/tools/commands", "launch/tools/convert",
                          "launch/tools/convert/gguf", "launch/tools/doctor", "launch/tools/report"});
    return std::map<std::string, std::set<std::string>>{
        {"framework/base", {}},
        {"framework/device", {"framework/base"}},
        {"framework/tensor", {"framework/base", "framework/device"}},
        {"framework/kernels", {"framework/base", "framework/device", "framework/tensor"}},
        {"framework/autograd",
         {"framework/base", "framework/device", "framework/tensor", "framework/kernels"}},
        {"framework/recipe", {"framework/base"}},
        {"framework/data", {"framework/base", "framework/recipe"}},
        {"framework/store", {"framework/base"}},
        {"framework/telemetry", {"framework/base", "framework/recipe", "framework/store"}},
        {"parallel", framework},
        {"layers", parallel},
        {"layers/moe", and_above(parallel, {"layers"})},
        {"optim", parallel},
        {"launch/train", house},
        {"launch/train/run", and_above(house, {"launch/train"})},
        {"launch/plan", plan},
        {"launch/tools/bench", tools},
        {"launch/tools/convert", tools},
        {"launch/tools/convert/gguf", and_above(tools, {"launch/tools/convert"})},
        {"launch/tools/doctor", tools},
        {"launch/tools/report", and_above(tools, {"launch/tools/bench"})},
        {"launch/tools/commands", everything},
        {"launch/main.cpp", everything},
        {"examples", tools},
        {"tests", and_above(everything, {"tests", "examples"})},
    };
  }();
  return table;
}

/// The innermost folder of the table that a path from the root lies in; "" when in none.
std::string folder_of(const std::string& path) {
  std::string innermost;
  for (const auto& [folder, allowed] : allowed_folders())
    if ((path == folder || path.starts_with(folder + "/")) && folder.size() > innermost.size())
      innermost = folder;
  return innermost;
}

bool is_code(const fs::path& path) {
  static const std::set<std::string> endings = {".h", ".cpp", ".c", ".cu", ".cuh", ".hpp", ".cc"};
  return endings.contains(path.extension().string());
}

/// The name that a line of code includes in quotes, if it does.
std::optional<std::string> quoted_include(std::string_view line) {
  const auto skip = [&](std::string_view word) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    const bool is_there = line.starts_with(word);
    if (is_there) line.remove_prefix(word.size());
    return is_there;
  };
  if (!skip("#") || !skip("include") || !skip("\"")) return std::nullopt;
  const std::size_t end = line.find('"');
  if (end == std::string_view::npos) return std::nullopt;
  return std::string(line.substr(0, end));
}

/// True where the line calls something of <algorithm>. Other standard headers bring it along with one
/// compiler and not with the next.
bool needs_algorithm(const std::string& line) {
  static const std::set<std::string> names = {
      "adjacent_find", "all_of",      "any_of",         "clamp",       "copy",      "copy_n",
      "count",         "count_if",    "equal",          "fill",        "fill_n",    "find",
      "find_if",       "for_each",    "is_sorted",      "lower_bound", "max",       "max_element",
      "min",           "min_element", "minmax_element", "none_of",     "partition", "remove_if",
      "replace",       "reverse",     "search",         "shuffle",     "sort",      "swap_ranges",
      "stable_sort",   "transform",   "unique",         "upper_bound"};
  for (std::size_t at = line.find("std::"); at != std::string::npos; at = line.find("std::", at + 1)) {
    std::string_view rest = std::string_view(line).substr(at + 5);
    if (rest.starts_with("ranges::")) return true;
    const std::size_t end = rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz_");
    if (end != std::string_view::npos && rest[end] == '(' && names.contains(std::string(rest.substr(0, end))))
      return true;
  }
  return false;
}

void check_file(const fs::path& root, const fs::path& path, IncludeReport& report) {
  const std::string name = path.lexically_relative(root).string(), folder = folder_of(name);
  if (folder.empty()) {
    report.violations.push_back(name +
                                ": this folder is not in the table; give it its place in include_order.cpp");
    return;
  }
  const std::set<std::string>& allowed = allowed_folders().at(folder);
  std::ifstream file(path);
  int number = 0;
  bool has_algorithm = false;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line == "#include <algorithm>") has_algorithm = true;
    if (!has_algorithm && needs_algorithm(line)) {
      report.violations.push_back(
          join_text(name, ":", number, ": uses <algorithm>, but does not include it"));
      has_algorithm = true;  // one sentence is enough
    }
    const std::optional<std::string> included = quoted_include(line);
    if (!included) continue;
    ++report.includes;
    const std::string target = folder_of(*included);
    const std::string place = join_text(name, ":", number, ": ");
    if (target.empty())
      report.violations.push_back(place + "includes \"" + *included +
                                  "\", expected a path from the root of the repository");
    else if (target != folder && !allowed.contains(target))
      report.violations.push_back(place + folder + " includes \"" + *included + "\", but " + target +
                                  " does not stand below it");
  }
}

}  // namespace

IncludeReport check_include_order(const fs::path& root) {
  IncludeReport report;
  std::vector<fs::path> paths;
  for (const char* top : {"examples", "launch", "layers", "optim", "parallel", "framework", "tests"}) {
    if (!fs::is_directory(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top))
      if (entry.is_regular_file() && is_code(entry.path())) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) check_file(root, path, report);
  report.files = static_cast<int>(paths.size());
  return report;
}

}  // namespace conclave
