#include "launch/tools/commands/report.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/text.h"
#include "framework/store/durable_file.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/written_files.h"
#include "launch/tools/report/page.h"
#include "launch/tools/report/recipe_table.h"
#include "launch/tools/report/run_report.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

std::string date_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

/// Runs that their recipes give the same name are told apart by their directories' names, or else by their
/// paths.
void name_apart(Json& runs) {
  const auto rename_twins = [&runs](auto new_name) {
    std::vector<std::string> names;
    for (const Json& run : runs) names.push_back(run["name"]);
    for (std::size_t i = 0; i < runs.size(); ++i)
      if (std::count(names.begin(), names.end(), names[i]) > 1)
        runs[i]["name"] = new_name(runs[i]["directory"].get<std::string>());
  };
  rename_twins([](const std::string& path) { return directory_name(path); });
  rename_twins([](const std::string& path) { return path; });
}

}  // namespace

int run_report(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "report",
       .positionals = "RUN_DIR [RUN_DIR ...]",
       .summary = "Shows a run, or several side by side, as one HTML page that needs no network.",
       .options = {{"output", "FILE",
                    "where to write the page; report.html in the first RUN_DIR if not given. A file "
                    "that is there is replaced only if it is such a page"}},
       .more =
           "The page has curves of losses, learning rate and speed, where the time went, which expert was\n"
           "chosen how often by block, time and domain, the layout with its plan of memory, and for several\n"
           "runs the keys in which their recipes differ. It can be written while a run goes on, and of a "
           "run\n"
           "that crashed.\n\n"
           "Examples:\n"
           "  conclave report runs/quickstart\n"
           "  conclave report runs/quickstart runs/micro --output comparison.html\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  const std::vector<std::string>& directories = options.positionals();
  check(!directories.empty(), Fault::request,
        "report: no run directory came; usage: conclave report [options] RUN_DIR [RUN_DIR ...]");

  // A page stays below some megabytes, however many runs are on it.
  const RunReportOptions sizes{.most_points = std::max<std::size_t>(200, 4000 / (1 + directories.size())),
                               .most_cells = 250'000 / directories.size()};
  Json data{{"created", date_text()}, {"runs", Json::array()}, {"differences", Json::array()}};
  std::vector<std::vector<std::pair<std::string, std::string>>> recipes;
  for (const std::string& directory : directories) {
    RunReport report = read_run(directory, sizes);
    data["runs"].push_back(std::move(report.json));
    recipes.push_back(std::move(report.keys));
  }
  name_apart(data["runs"]);
  for (const KeyDifference& row : recipe_differences(recipes))
    data["differences"].push_back({{"key", row.key}, {"values", row.values}});
  std::string title;
  for (const Json& run : data["runs"]) title += (title.empty() ? "" : ", ") + run["name"].get<std::string>();

  const std::filesystem::path output =
      options.text("output", (std::filesystem::path(directories[0]) / "report.html").string());
  check_writable("report", output, MissingFolders::are_refused);
  refuse_foreign_file("report", output, "a page of `conclave report`", begins_as_report_page);
  const std::string page = report_page(title, data);
  write_text_durably(output, page);
  for (const Json& run : data["runs"])
    for (const Json& note : run["notes"])
      std::printf("note on %s: %s\n", printable(run["directory"].get<std::string>()).c_str(),
                  printable(note.get<std::string>()).c_str());
  std::printf("%s shows %s, %zu kB; open it in any browser.\n", printable(output.string()).c_str(),
              counted(static_cast<std::int64_t>(directories.size()), "run").c_str(),
              (page.size() + 999) / 1000);
  return 0;
}

}  // namespace conclave
