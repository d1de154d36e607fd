// These functions make a checkpoint be there whole or not at all. All ranks write their files into
// step-00000100.partial/ and flush them to the disk. When every file is safe, one process writes the manifest
// with their sizes and checksums. It then renames the directory and flushes the names. A directory without a
// manifest is no checkpoint. The functions make plain system calls and use no HDF5, so any thread may call
// them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "framework/store/manifest.h"
#include "framework/store/shard.h"

namespace conclave {

/// DIRECTORY/step-00000100.partial
std::filesystem::path partial_checkpoint_path(const std::filesystem::path& checkpoints, std::int64_t step);

/// Makes the partial directory, empty; the rest of a crashed save there is removed. One process calls it,
/// before any file is written.
void begin_checkpoint(const std::filesystem::path& checkpoints, std::int64_t step);

/// Writes a file into the partial directory and returns once it is on the disk. Its checksum is that of the
/// bytes given, not of what a disk made of them. Interrupted and short writes go on; a refusal (no space,
/// too large, read-only) is a Fault::machine.
FileEntry write_checkpoint_file(const std::filesystem::path& checkpoints, std::int64_t step,
                                const std::string& name, std::span<const std::byte> bytes);

/// The same for a shard, which is sealed on the way: checksums are computed while the disk works.
FileEntry write_shard(const std::filesystem::path& checkpoints, std::int64_t step, std::int64_t rank,
                      ShardImage& shard);

/// Publishes the checkpoint, replaces one of the same step, and returns its directory. One process calls it,
/// after all files of all ranks have been written. A file that is not there with its size is a
/// Fault::machine.
std::filesystem::path commit_checkpoint(const std::filesystem::path& checkpoints, std::int64_t step,
                                        const std::vector<FileEntry>& files);

/// Removes the partial directory of a save that failed.
void discard_checkpoint(const std::filesystem::path& checkpoints, std::int64_t step) noexcept;

}  // namespace conclave
