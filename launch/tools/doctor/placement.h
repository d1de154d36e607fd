// RankPlacement: how to start ranks so that each has cores of its own, near its memory. Advice for machines
// of one kind, by numbers alone; who measures will do better where ranks are few and caches odd.
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

/// Ranks on one machine, its cores shared out evenly. `threads`: of a rank, or 0 for all that fit.
RankPlacement place_ranks(const MachineFacts& facts, int ranks, int threads = 0);

/// The start of a command line for it, without the program: "mpirun -n 8 --map-by ppr:4:numa:PE=2 --bind-to
/// core".
std::string mpirun_text(const RankPlacement& placement);
std::string srun_text(const RankPlacement& placement);

/// What is to be known about it, a sentence each. `tensor`: ranks that share layers, which talk most.
std::vector<std::string> placement_advice(const MachineFacts& facts, const RankPlacement& placement,
                                          int tensor);

}  // namespace conclave
