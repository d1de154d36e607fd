#include "launch/train/earlier_files.h"

#include <fstream>
#include <system_error>
#include <vector>

#include "framework/recipe/nearest.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/telemetry/metrics.h"

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

void refuse_foreign_log(const fs::path& path) {
  const fs::file_status status = status_of(path);
  if (!fs::exists(status)) return;
  check(!fs::is_symlink(status), Fault::request, "output: ", path.string(),
        " is a symbolic link, and the run would write over what it points to; remove the link, or choose "
        "another output");
  check(
      fs::is_regular_file(status), Fault::request, "output: ", path.string(),
      " is no ordinary file, so the run cannot write its own there; move it away, or choose another output");
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::request, "output: ", path.string(),
        " cannot be read; check its permissions, or choose another output");
  std::string line;
  if (!std::getline(file, line)) return;  // an empty file
  check(is_own_line(line, !file.eof()), Fault::request, "output: ", path.string(),
        " was not written by a run of Conclave: its first line is no measurement of a step; move it away, or "
        "choose another output");
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

void refuse_foreign_logs(const fs::path& run) {
  for (const char* name : {"metrics.jsonl", "samples.jsonl"}) refuse_foreign_log(run / name);
}

std::string move_earlier_files(const fs::path& run) {
  if (!has_content(run / "metrics.jsonl") && !has_content(run / "samples.jsonl") &&
      !has_content(run / "experts.h5") && !has_files(run / "tensorboard"))
    return "";
  const fs::path place = free_place(run);
  make_directories(place);
  std::error_code code;
  fs::copy_file(run / "recipe.yaml", place / "recipe.yaml", code);  // a run may have lost it
  std::vector<std::string> moved;
  for (const char* name :
       {"metrics.jsonl", "samples.jsonl", "experts.h5", "experts", "tensorboard", "recipes"}) {
    if (!fs::exists(status_of(run / name))) continue;
    fs::rename(run / name, place / name, code);
    check(!code, Fault::machine, "Cannot move ", (run / name).string(), " to ", place.string(), ": ",
          code.message(), ". Check the permissions of its directory.");
    moved.emplace_back(name);
  }
  return join_text(
      "There is no checkpoint here, so the run begins anew; what an earlier start measured is kept in ",
      place.string(), ": ", join_words(moved), ".");
}

}  // namespace conclave
