// The directory that holds a run's checkpoints: which is the newest good one, which are old, which were left
// half-done. Only one process of a job calls the functions that change it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace conclave {

/// DIRECTORY/step-00000100
std::filesystem::path checkpoint_path(const std::filesystem::path& checkpoints, std::int64_t step);

/// The step that the name of a checkpoint's directory says, step-....replaced included; -1: none.
std::int64_t step_of_name(const std::filesystem::path& checkpoint);

/// The checkpoints that are there, damaged ones too, newest first. A directory that does not exist holds
/// none. One may be called step-....replaced, left by a process that was killed while it put another in its
/// place.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& checkpoints);

/// Throws a Fault::data when the checkpoint holds another step than its name says.
void check_step_of_name(const std::filesystem::path& checkpoint);

/// The directory that holds the checkpoints of a run directory, or the path itself when it is one.
std::filesystem::path checkpoints_of(const std::filesystem::path& path);

/// True where a path is meant to be one checkpoint, and not a directory of several.
bool names_one_checkpoint(const std::filesystem::path& path);

struct FoundCheckpoint {
  std::optional<std::filesystem::path> path;  // the newest good one, if there is any
  std::vector<std::string> rejected;          // one sentence for each newer one that is damaged
};

/// The newest checkpoint whose every byte is right, looked for by this process alone.
FoundCheckpoint newest_checkpoint(const std::filesystem::path& checkpoints);

/// The checkpoint at a path that a user gave: a step-... directory, a checkpoints directory or a run
/// directory. Throws Fault::data when there is no good one, saying what is wrong with each that was found.
FoundCheckpoint find_checkpoint(const std::filesystem::path& path);

/// Deletes all but the newest `keep` complete checkpoints; 0 keeps all. Checkpoints of steps after `newest`
/// neither count nor go, as they were not found good yet. A damaged one does not count as kept either. A
/// checkpoint that was set aside goes when `keep` newer ones stay.
void remove_old_checkpoints(const std::filesystem::path& checkpoints, std::int64_t newest, std::int64_t keep);

/// Renames the checkpoints of steps between these two, which were found bad, to step-....rejected. They are
/// no checkpoints any more and stay for their owner to look at. Returns the new names.
std::vector<std::string> set_aside_checkpoints(const std::filesystem::path& checkpoints, std::int64_t after,
                                               std::int64_t before);

/// Deletes what a killed run left half-written. A checkpoint that the run had moved aside gets its name back.
void remove_partial_checkpoints(const std::filesystem::path& checkpoints);

}  // namespace conclave
