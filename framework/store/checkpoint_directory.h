// The directory that holds a run's checkpoints: which is the newest good one, which are old, what was left
// half-done. Only one process of a job calls what changes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace conclave {

/// DIRECTORY/step-00000100
std::filesystem::path checkpoint_path(const std::filesystem::path& checkpoints, std::int64_t step);

struct FoundCheckpoint {
  std::optional<std::filesystem::path> path;  // the newest good one, if there is any
  std::vector<std::string> rejected;          // one sentence for each newer one that is damaged
};

/// The newest checkpoint whose every byte is right. A directory that does not exist holds none. It may be one
/// called step-....replaced, which a process killed while it put another in its place has left.
FoundCheckpoint newest_checkpoint(const std::filesystem::path& checkpoints);

/// What a user may mean by a checkpoint: a step-... directory, a checkpoints directory or a run directory.
/// Throws Fault::data when there is no good one, saying what is wrong with each that was found.
FoundCheckpoint find_checkpoint(const std::filesystem::path& path);

/// Deletes all but the newest `keep` complete checkpoints; 0 keeps all. A damaged one does not count as kept.
void remove_old_checkpoints(const std::filesystem::path& checkpoints, std::int64_t keep);

/// Deletes what a killed run left half-written, and gives a checkpoint that it had moved aside its name back.
void remove_partial_checkpoints(const std::filesystem::path& checkpoints);

}  // namespace conclave
