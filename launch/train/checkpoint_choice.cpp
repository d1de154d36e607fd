#include "launch/train/checkpoint_choice.h"

#include <sstream>

#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/store/manifest.h"
#include "parallel/agreement.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// Every rank looks at its share of the files; all ranks throw what the lowest one found wrong. Collective.
void verify_together(Communicator& world, const fs::path& checkpoint) {
  agree(world, [&] {
    const std::vector<FileEntry> files = read_manifest(checkpoint);
    for (std::size_t i = static_cast<std::size_t>(world.rank()); i < files.size();
         i += static_cast<std::size_t>(world.size()))
      verify_file(checkpoint, files[i], ManifestCheck::content);
  });
  agree(world, [&] {
    if (world.rank() == 0) check_step_of_name(checkpoint);
  });
}

FoundCheckpoint newest_of(Communicator& world, const std::vector<fs::path>& candidates_of_rank_0) {
  std::string text;
  for (const fs::path& path : candidates_of_rank_0) text += path.string() + "\n";
  std::istringstream lines(broadcast_text(world, text, 0));
  FoundCheckpoint found;
  for (std::string line; std::getline(lines, line);) {
    try {
      verify_together(world, line);
      found.path = line;
      return found;
    } catch (const Error& error) {
      if (error.fault() != Fault::data) throw;
      found.rejected.emplace_back(error.what());
    }
  }
  return found;
}

}  // namespace

FoundCheckpoint newest_checkpoint(Communicator& world, const fs::path& checkpoints, std::int64_t last_step) {
  std::vector<fs::path> candidates;
  agree(world, [&] {
    if (world.rank() != 0) return;
    for (const fs::path& path : list_checkpoints(checkpoints))
      if (step_of_name(path) <= last_step) candidates.push_back(path);
  });
  return newest_of(world, candidates);
}

FoundCheckpoint checkpoint_before(Communicator& world, const fs::path& checkpoint) {
  return newest_checkpoint(world, checkpoint.parent_path(), step_of_name(checkpoint) - 1);
}

FoundCheckpoint find_checkpoint(Communicator& world, const fs::path& path) {
  std::vector<fs::path> candidates;
  agree(world, [&] {
    if (world.rank() != 0) return;
    const fs::path aside =
        replaced_path(path);  // what a process killed while it replaced the checkpoint left
    if (!names_one_checkpoint(path))
      candidates = list_checkpoints(checkpoints_of(path));
    else
      candidates = {!is_there(path) && is_there(aside) ? aside : path};
  });
  FoundCheckpoint found = newest_of(world, candidates);
  if (found.path) return found;
  std::string reasons;
  for (const std::string& reason : found.rejected) reasons += "\n  " + reason;
  throw Error(
      Fault::data,
      join_text(
          "There is no ", reasons.empty() ? "" : "good ", "checkpoint in ", path.string(),
          reasons.empty() ? ". Give the path of a step-... directory, or of a run that has saved one." : ":",
          reasons),
      Reach::all_ranks);
}

}  // namespace conclave
