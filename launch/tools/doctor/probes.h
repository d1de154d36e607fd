// The probes of `conclave doctor`, one section each. What a machine has is told as it is; what would make
// training slow, wrong or fail is a note or a problem with what to do. A probe that cannot look says so and
// never ends the report.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/tools/doctor/finding.h"
#include "launch/tools/doctor/machine_facts.h"
#include "parallel/communicator.h"

namespace conclave {

/// This program: optimised or not, its compiler, the libraries that it found.
Section examine_build();

/// Processors, cores, NUMA nodes, quota and clock.
Section examine_processors(const MachineFacts& facts);

/// Memory, its limits, huge pages, and the room for memory that ranks share. `shared_memory_bytes`: free in
/// /dev/shm, below 0 where there is none.
Section examine_memory(const MachineFacts& facts, std::int64_t shared_memory_bytes);

/// ulimits, as getrlimit tells them.
Section examine_limits();

/// Whether the directory can hold runs: its type, free space, and what checkpoints need, tried out in a
/// folder of its own that is removed again: durable writes, replacing a directory by another, locks, maps
/// that processes share, HDF5.
Section examine_file_system(const std::filesystem::path& directory);

/// What the driver and NCCL say; needs neither in the build, since both are looked up while running.
Section examine_gpus();

/// Where a rank runs, as it tells the others in one line of text.
struct RankPlace {
  std::string host;
  std::vector<int> processors;  // that it may run on
  int threads = 1;

  std::string text() const;
  static RankPlace parse(const std::string& text);
};

/// Each rank's place, and what is wrong with them taken together: processors that several ranks share, fewer
/// of them than threads, nodes of unequal numbers of ranks. `yields`: waiting ranks leave their processors to
/// others.
Section examine_ranks(const std::vector<RankPlace>& places, const MachineFacts& facts, bool yields);

}  // namespace conclave
