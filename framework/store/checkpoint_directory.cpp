#include "framework/store/checkpoint_directory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "framework/base/error.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/store/manifest.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

struct Step {
  std::int64_t step;
  fs::path path;
};

bool names_a_step(const std::string& name) {
  return name.starts_with("step-") && name.size() >= 6 && name.size() <= 20 &&
         name.find_first_not_of("0123456789", 5) == std::string::npos;
}

/// step-00000100.replaced: a checkpoint that stepped aside for another of its step.
bool is_replaced(const fs::path& path) {
  return replaced_path(path.stem()) == path.filename() && names_a_step(path.stem().string());
}

/// step-00000100.rejected
fs::path rejected_path(const fs::path& checkpoint) {
  return fs::path(checkpoint) += ".rejected";
}

bool is_rejected(const fs::path& path) {
  return path.extension() == ".rejected" && names_a_step(path.stem().string());
}

bool is_partial(const fs::path& path) {
  return path.filename().string().starts_with("step-") && path.extension() == ".partial";
}

/// Newest first.
std::vector<Step> list_steps(const fs::path& checkpoints) {
  std::vector<Step> steps;
  for (const fs::path& path : entries_of(checkpoints)) {
    const std::string name = path.stem().string();
    if (names_a_step(path.filename().string()) ||
        (is_replaced(path) && !is_there(checkpoints / name)))  // the other one never came
      steps.push_back({std::stoll(name.substr(5)), path});
  }
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.step > b.step; });
  return steps;
}

/// Loses its name first, so that a deletion cut short never leaves half a checkpoint under a good name.
void remove_checkpoint(const fs::path& checkpoint) {
  const fs::path partial = partial_path(checkpoint);
  std::error_code code;
  fs::remove_all(partial, code);
  fs::rename(checkpoint, partial, code);
  check(!code, Fault::machine, "Cannot remove the old checkpoint ", checkpoint.string(), ": ", code.message(),
        ". Check the permissions of its directory.");
  fs::remove_all(partial, code);
}

}  // namespace

fs::path checkpoint_path(const fs::path& checkpoints, std::int64_t step) {
  check(step >= 0, "checkpoint_path: step ", step, " came, expected zero or more");
  char name[32];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return checkpoints / name;
}

std::int64_t step_of_name(const fs::path& checkpoint) {
  const fs::path name = is_replaced(checkpoint) ? checkpoint.stem() : checkpoint.filename();
  return names_a_step(name.string()) ? std::stoll(name.string().substr(5)) : -1;
}

std::vector<fs::path> list_checkpoints(const fs::path& checkpoints) {
  std::vector<fs::path> paths;
  for (const Step& step : list_steps(checkpoints)) paths.push_back(step.path);
  return paths;
}

void check_step_of_name(const fs::path& checkpoint) {
  const CheckpointReader reader(checkpoint, Verify::nothing);
  const std::string name = checkpoint.filename().string();
  check(!name.starts_with("step-") || reader.step() == std::atoll(name.c_str() + 5), Fault::data,
        "Checkpoint ", checkpoint.string(), " holds step ", reader.step(),
        ", which is not what its name says. Give it its own name back.");
}

fs::path checkpoints_of(const fs::path& path) {
  return is_directory_there(path / "checkpoints") ? path / "checkpoints" : path;
}

bool names_one_checkpoint(const fs::path& path) {
  return path.filename().string().starts_with("step-") || is_there(path / manifest_name);
}

FoundCheckpoint newest_checkpoint(const fs::path& checkpoints) {
  FoundCheckpoint found;
  for (const Step& candidate : list_steps(checkpoints)) {
    try {
      verify_manifest(candidate.path, ManifestCheck::content);
      check_step_of_name(candidate.path);
      found.path = candidate.path;
      return found;
    } catch (const Error& error) {
      found.rejected.emplace_back(error.what());
    }
  }
  return found;
}

FoundCheckpoint find_checkpoint(const fs::path& path) {
  const bool is_step = path.filename().string().starts_with("step-");
  if (is_step && !is_there(path) && is_there(replaced_path(path)))
    return find_checkpoint(replaced_path(path));
  check(is_there(path), Fault::data, "Checkpoint ", path.string(),
        ": there is no such file or directory. Give the path of a step-... directory, or of a run.");
  if (names_one_checkpoint(path)) {
    const CheckpointReader verified(path);
    return {verified.path(), {}};
  }
  const fs::path checkpoints = checkpoints_of(path);
  FoundCheckpoint found = newest_checkpoint(checkpoints);
  if (found.path) return found;
  std::string reasons;
  for (const std::string& reason : found.rejected) reasons += "\n  " + reason;
  fail(Fault::data, "There is no ", reasons.empty() ? "" : "good ", "checkpoint in ", checkpoints.string(),
       reasons.empty() ? ". Give the path of a step-... directory, or of a run that has saved one." : ":",
       reasons);
}

void remove_old_checkpoints(const fs::path& checkpoints, std::int64_t newest, std::int64_t keep) {
  if (keep <= 0) return;
  std::int64_t kept = 0, oldest_kept = newest;
  for (const Step& candidate : list_steps(checkpoints)) {
    if (candidate.step > newest) continue;
    if (kept == keep) {
      remove_checkpoint(candidate.path);
      continue;
    }
    try {
      verify_manifest(candidate.path, ManifestCheck::sizes);
      ++kept;
      oldest_kept = candidate.step;
    } catch (const Error&) {
      // Left where it is for its owner to look at, until enough newer ones are good.
    }
  }
  if (kept < keep) return;
  for (const fs::path& path : entries_of(checkpoints))
    if (is_rejected(path) && step_of_name(path.stem()) < oldest_kept) remove_checkpoint(path);
}

std::vector<std::string> set_aside_checkpoints(const fs::path& checkpoints, std::int64_t after,
                                               std::int64_t before) {
  std::vector<std::string> names;
  for (const Step& candidate : list_steps(checkpoints)) {
    if (candidate.step <= after || candidate.step >= before) continue;
    const fs::path aside = rejected_path(checkpoint_path(checkpoints, candidate.step));
    std::error_code code;
    fs::remove_all(aside, code);  // an earlier one of this step
    fs::rename(candidate.path, aside, code);
    check(!code, Fault::machine, "Cannot move the rejected checkpoint ", candidate.path.string(),
          " aside: ", code.message(), ". Check the permissions of its directory.");
    names.push_back(aside.filename().string());
  }
  return names;
}

void remove_partial_checkpoints(const fs::path& checkpoints) {
  for (const fs::path& left : entries_of(checkpoints)) {
    const fs::path name = checkpoints / left.stem();
    std::error_code code;
    if (is_replaced(left) && !is_there(name))
      fs::rename(left, name, code);
    else if (is_partial(left) || is_replaced(left))
      fs::remove_all(left, code);
    check(!code, Fault::machine, "Cannot clear away what a killed run left at ", left.string(), ": ",
          code.message(), ". Check the permissions of its directory.");
  }
}

}  // namespace conclave
