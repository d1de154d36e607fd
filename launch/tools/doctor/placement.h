// RankPlacement: how to start ranks so that each has cores of its own, near its memory. It is advice for
// machines of one kind, by numbers alone. Measuring does better where ranks are few or caches are unusual.
#pragma once

#include <string>
#include <vector>

#include "launch/tools/doctor/machine_facts.h"

namespace conclave {

struct RankPlacement {
  int ranks = 1;              // on one machine
  int threads = 1;            // of a rank, on cores of its own
  int ranks_per_numa = 0;     // 0: ranks do not divide into the NUMA nodes, or a rank spans several
  bool shares_cores = false;  // more ranks than cores: they take turns
};

/// Places ranks on one machine, its cores shared out evenly. `threads` are those of a rank, or 0 for all that
/// fit.
RankPlacement place_ranks(const MachineFacts& facts, int ranks, int threads = 0);

/// Returns the start of a command line for it, without the program: "mpirun -n 8 --map-by ppr:4:numa:PE=2
/// --bind-to core".
std::string mpirun_text(const RankPlacement& placement);
std::string srun_text(const RankPlacement& placement);

/// Returns advice about a placement, a sentence each. `tensor` counts the ranks that share layers, which
/// communicate most.
std::vector<std::string> placement_advice(const MachineFacts& facts, const RankPlacement& placement,
                                          int tensor);

}  // namespace conclave
