// Finds which checkpoint the ranks of a job read: the newest whose every byte is right. The files of each are
// dealt out over the ranks, which then agree. So a large checkpoint is read once and not once per rank.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>

#include "framework/store/checkpoint_directory.h"
#include "parallel/communicator.h"

namespace conclave {

/// Does as newest_checkpoint, by all ranks together and with the same answer on all, among checkpoints of
/// steps up to `last_step`. Rank 0's view of the directory counts. Collective.
FoundCheckpoint newest_checkpoint(Communicator& world, const std::filesystem::path& checkpoints,
                                  std::int64_t last_step = std::numeric_limits<std::int64_t>::max());

/// Finds the newest checkpoint of a step before that of `checkpoint`, in the same directory. Collective.
FoundCheckpoint checkpoint_before(Communicator& world, const std::filesystem::path& checkpoint);

/// Does as find_checkpoint, likewise. Collective.
FoundCheckpoint find_checkpoint(Communicator& world, const std::filesystem::path& path);

}  // namespace conclave
