#include "tests/structure/include_order.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <set>

#include "framework/base/error.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// What each folder may include beside itself; everything listed below a folder is spelled out, nothing is
/// implied.
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
    const std::set<std::string> tools = and_above(plan, {"launch/plan"});
    const std::set<std::string> everything =
        and_above(tools, {"launch/tools/bench", "launch/tools/commands", "launch/tools/convert",
                          "launch/tools/doctor", "launch/tools/report"});
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
        {"launch/plan", plan},
        {"launch/tools/bench", tools},
        {"launch/tools/convert", tools},
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

/// The folder of the table that a path from the root lies in; "" when in none.
std::string folder_of(const std::string& path) {
  std::string longest;  // a folder may stand in the table beside one that it lies in
  for (const auto& [folder, allowed] : allowed_folders())
    if (folder.size() > longest.size() && (path == folder || path.starts_with(folder + "/")))
      longest = folder;
  return longest;
}

bool is_code(const fs::path& path) {
  static const std::set<std::string> endings = {".h", ".cpp", ".c", ".cu", ".cuh", ".hpp", ".cc"};
  return endings.contains(path.extension().string());
}

void check_file(const fs::path& root, const fs::path& path, IncludeReport& report) {
  static const std::regex quoted("^\\s*#\\s*include\\s*\"([^\"]*)\"");
  const std::string name = path.lexically_relative(root).string(), folder = folder_of(name);
  if (folder.empty()) {
    report.violations.push_back(name +
                                ": this folder is not in the table; give it its place in include_order.cpp");
    return;
  }
  const std::set<std::string>& allowed = allowed_folders().at(folder);
  std::ifstream file(path);
  int number = 0;
  std::smatch match;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (!std::regex_search(line, match, quoted)) continue;
    ++report.includes;
    const std::string included = match[1], target = folder_of(included);
    const std::string place = join_text(name, ":", number, ": ");
    if (target.empty())
      report.violations.push_back(place + "includes \"" + included +
                                  "\", expected a path from the root of the repository");
    else if (target != folder && !allowed.contains(target))
      report.violations.push_back(place + folder + " includes \"" + included + "\", but " + target +
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
