// The probes of `conclave doctor`, one section each. A probe tells what a machine has. Anything that would
// make training slow, wrong or fail is a note or a problem, and says what to do. A probe that cannot look
// says so and never ends the report.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/tools/doctor/finding.h"
#include "launch/tools/doctor/machine_facts.h"
#include "parallel/communicator.h"

namespace conclave {

/// Examines this program: optimised or not, its compiler, the libraries that it found.
Section examine_build();

/// Examines processors, cores, NUMA nodes, quota and clock.
Section examine_processors(const MachineFacts& facts);

/// Examines memory, its limits, huge pages, and the room for memory that ranks share. `shared_memory_bytes`
/// are free in /dev/shm, below 0 where there is none.
Section examine_memory(const MachineFacts& facts, std::int64_t shared_memory_bytes);

/// Examines ulimits, as getrlimit tells them.
Section examine_limits();

/// Examines whether the directory can hold runs: its type and free space, and what checkpoints need. It tries
/// durable writes, replacing a directory by another, locks, maps that processes share, and HDF5. It does so
/// in a folder of its own that is removed again.
Section examine_file_system(const std::filesystem::path& directory);

/// Examines what the driver and NCCL say. The build needs neither, since both are looked up while running.
Section examine_gpus();

/// A RankPlace says where a rank runs, as the rank tells the others in one line of text.
struct RankPlace {
  std::string host;
  std::vector<int> processors;  // that it may run on
  int threads = 1;

  std::string text() const;
  static RankPlace parse(const std::string& text);
};

/// Examines each rank's place, and what is wrong with the places taken together. Ranks may share processors,
/// have fewer of them than threads, or be unequal in number on the nodes. `yields` says that waiting ranks
/// leave their processors to others.
Section examine_ranks(const std::vector<RankPlace>& places, const MachineFacts& facts, bool yields);

}  // namespace conclave
