// How a checkpoint comes to be there whole or not at all: all ranks write their files into
// step-00000100.partial/ and flush them to the disk; when every file is safe, one process writes the manifest
// with their sizes and checksums, renames the directory, and flushes the names. A directory without a
// manifest is no checkpoint. Plain system calls, no HDF5: any thread may call these.
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

/// Makes the partial directory, empty; what a crashed save left there is removed. By one process, before any
/// file is written.
void begin_checkpoint(const std::filesystem::path& checkpoints, std::int64_t step);

/// Writes a file into the partial directory and returns once it is on the disk. Its checksum is that of the
/// bytes given, not of what a disk made of them. Interrupted and short writes go on; a refusal (no space,
/// too large, read-only) is a Fault::machine.
FileEntry write_checkpoint_file(const std::filesystem::path& checkpoints, std::int64_t step,
                                const std::string& name, std::span<const std::byte> bytes);

/// The same of a shard, which is sealed on the way: checksums are computed while the disk works.
FileEntry write_shard(const std::filesystem::path& checkpoints, std::int64_t step, std::int64_t rank,
                      ShardImage& shard);

/// Publishes: by one process, after all files of all ranks have been written. A file that is not there with
/// its size is a Fault::machine. Replaces a checkpoint of the same step. Returns its directory.
std::filesystem::path commit_checkpoint(const std::filesystem::path& checkpoints, std::int64_t step,
                                        const std::vector<FileEntry>& files);

/// Removes the partial directory of a save that failed.
void discard_checkpoint(const std::filesystem::path& checkpoints, std::int64_t step) noexcept;

}  // namespace conclave
