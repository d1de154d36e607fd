#include "launch/train/earlier_files.h"

#include <algorithm>
#include <fstream>
#include <system_error>
#include <vector>

#include "framework/recipe/nearest.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/telemetry/metrics.h"
#include "launch/train/passes.h"
#include "launch/train/recipe_parts.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// Every line that a run writes begins with its step and has one of these keys.
bool is_own_line(const std::string& line, bool whole) {
  const std::string start = "{\"step\": ";
  if (!whole) return line.starts_with(start) || start.starts_with(line);
  return line.starts_with(start) && step_of_line(line) &&
         (line.find("\"lm_loss\": ") != std::string::npos || line.find("\"dataset\": ") != std::string::npos);
}

fs::file_status status_of(const fs::path& path) {
  std::error_code code;
  const fs::file_status status = fs::symlink_status(path, code);
  check(status.type() != fs::file_type::none, Fault::request, "output: cannot look at ", path.string(), ": ",
        code.message(), "; check the permissions of its directory");
  return status;
}

/// False where nothing is there.
bool is_ordinary_file(const fs::path& path) {
  const fs::file_status status = status_of(path);
  if (!fs::exists(status)) return false;
  check(!fs::is_symlink(status), Fault::request, "output: ", path.string(),
        " is a symbolic link, and the run would write over what it points to; remove the link, or choose "
        "another output");
  check(
      fs::is_regular_file(status), Fault::request, "output: ", path.string(),
      " is no ordinary file, so the run cannot write its own there; move it away, or choose another output");
  return true;
}

void refuse_foreign_log(const fs::path& path) {
  if (!is_ordinary_file(path)) return;
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::request, "output: ", path.string(),
        " cannot be read; check its permissions, or choose another output");
  std::string line;
  if (!std::getline(file, line)) return;  // an empty file
  check(is_own_line(line, !file.eof()), Fault::request, "output: ", path.string(),
        " was not written by a run of Conclave: its first line is no measurement of a step; move it away, or "
        "choose another output");
}

/// Files that a run leaves whole, under a name that somebody else may use for another thing.
struct WholeFile {
  const char* name;
  const char* beginning;  // of those that a run has written
};
constexpr WholeFile profile_files[] = {{"profile.txt", "Rank 0, mean of "},
                                       {"trace.json", "{\"traceEvents\":"}};

bool is_own(const fs::path& run, const WholeFile& file) {
  const std::string expected = file.beginning;
  std::ifstream content(run / file.name, std::ios::binary);
  std::string start(expected.size(), '\0');
  return content.read(start.data(), static_cast<std::streamsize>(start.size())) && start == expected;
}

void refuse_foreign_file(const fs::path& path, bool is_the_runs) {
  check(!is_ordinary_file(path) || is_the_runs, Fault::request, "output: ", path.string(),
        " was not written by a run of Conclave, and the run would write over it; move it away, or choose "
        "another output");
}

bool has_own_lines(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  return std::getline(file, line) && !line.empty() && is_own_line(line, !file.eof());
}

bool has_content(const fs::path& path) {
  std::error_code code;
  return fs::is_regular_file(path, code) && fs::file_size(path, code) > 0;
}

/// True where a directory has an entry that is not empty.
bool has_files(const fs::path& directory) {
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(directory, code))
    if (has_content(entry.path())) return true;
  return false;
}

fs::path free_place(const fs::path& run) {
  for (int number = 1;; ++number) {
    const fs::path place = run / join_text("earlier-", number);
    if (!fs::exists(status_of(place))) return place;
  }
}

}  // namespace

void refuse_foreign_files(const fs::path& run, bool with_profile) {
  for (const char* name : {"metrics.jsonl", "samples.jsonl"}) refuse_foreign_log(run / name);
  is_ordinary_file(run / "log.txt");  // to which lines are added
  refuse_foreign_file(run / passes_name, is_passes_file(run / passes_name));
  if (!with_profile) return;
  for (const WholeFile& file : profile_files) refuse_foreign_file(run / file.name, is_own(run, file));
}

void refuse_foreign_recipe(const fs::path& given, const fs::path& run) {
  const fs::path kept = run / "recipe.yaml";
  if (!fs::exists(status_of(kept))) return;
  if (!list_checkpoints(run / "checkpoints").empty() || has_recipe_parts(run) ||
      has_own_lines(run / "metrics.jsonl") || fs::exists(status_of(run / "earlier-1")))
    return;
  check(!is_same_file(given, kept), Fault::request, "output: ", run.string(),
        " came, but the run would write its resolved recipe over ", given.string(),
        ", the recipe itself; choose another output");
  fail(Fault::request, "output: ", run.string(), " came, but ", kept.string(),
       " is there and no run has left anything beside it, so it is somebody's own; move it away, or choose "
       "another output");
}

std::string move_earlier_files(const fs::path& run) {
  std::vector<std::string> measured = {"metrics.jsonl", "samples.jsonl", "experts.h5"};
  if (is_passes_file(run / passes_name)) measured.emplace_back(passes_name);
  if (is_passes_file(run / old_passes_name)) measured.emplace_back(old_passes_name);
  for (const WholeFile& file : profile_files)
    if (is_own(run, file)) measured.emplace_back(file.name);
  if (!has_files(run / "tensorboard") &&
      std::none_of(measured.begin(), measured.end(),
                   [&](const std::string& name) { return has_content(run / name); }))
    return "";
  measured.insert(measured.begin() + 3, {"experts", "tensorboard", "recipes"});
  const fs::path place = free_place(run);
  make_directories(place);
  std::error_code code;
  fs::copy_file(run / "recipe.yaml", place / "recipe.yaml", code);  // a run may have lost it
  std::vector<std::string> moved;
  for (const std::string& name : measured) {
    if (!fs::exists(status_of(run / name))) continue;
    fs::rename(run / name, place / name, code);
    check(!code, Fault::machine, "Cannot move ", (run / name).string(), " to ", place.string(), ": ",
          code.message(), ". Check the permissions of its directory.");
    moved.push_back(name);
  }
  return join_text(
      "There is no checkpoint here, so the run begins anew; what an earlier start measured is kept in ",
      place.string(), ": ", join_words(moved), ".");
}

}  // namespace conclave
