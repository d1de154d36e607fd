#include "launch/tools/doctor/placement.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/base/text.h"

namespace conclave {

RankPlacement place_ranks(const MachineFacts& facts, int ranks, int threads) {
  RankPlacement placement{.ranks = ranks};
  const int cores = facts.usable_cores(), nodes = static_cast<int>(facts.nodes.size());
  placement.threads = threads > 0 ? threads : std::max(1, cores / ranks);
  placement.shares_cores = ranks > cores || ranks * placement.threads > cores;
  if (placement.shares_cores || ranks % nodes != 0) return placement;
  const int per_node = ranks / nodes;
  if (per_node * placement.threads <= facts.cores / nodes) placement.ranks_per_numa = per_node;
  return placement;
}

std::string mpirun_text(const RankPlacement& placement) {
  if (placement.shares_cores)
    return join_text(
        "mpirun -n ", placement.ranks,
        " --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -x OMP_NUM_THREADS=", placement.threads);
  const std::string map =
      placement.ranks_per_numa > 0 ? join_text("ppr:", placement.ranks_per_numa, ":numa") : "slot";
  return join_text("mpirun -n ", placement.ranks, " --map-by ", map, ":PE=", placement.threads,
                   " --bind-to core -x OMP_NUM_THREADS=", placement.threads);
}

std::string srun_text(const RankPlacement& placement) {
  if (placement.shares_cores) return "";
  return join_text("srun --mpi=pmix --ntasks-per-node=", placement.ranks,
                   " --cpus-per-task=", placement.threads, " --cpu-bind=cores --distribution=block:block");
}

std::vector<std::string> placement_advice(const MachineFacts& facts, const RankPlacement& placement,
                                          int tensor) {
  std::vector<std::string> sentences;
  const int cores = facts.usable_cores(), nodes = static_cast<int>(facts.nodes.size());
  if (placement.shares_cores) {
    sentences.push_back(join_text(counted(placement.ranks, "rank"), " take turns on ", counted(cores, "core"),
                                  ": good for tests; a machine of this kind is full with ", cores, "."));
    return sentences;
  }
  const int idle = cores - placement.ranks * placement.threads;
  if (idle > 0)
    sentences.push_back(
        join_text(idle, idle == 1 ? " core stays" : " cores stay",
                  " idle: ", counted(placement.ranks, "rank"), " of ", counted(placement.threads, "thread"),
                  placement.ranks == 1 ? " does not fill " : " do not fill ", counted(cores, "core"), "."));
  if (nodes > 1 && placement.ranks_per_numa == 0)
    sentences.push_back(placement.ranks < nodes
                            ? join_text("A rank spans NUMA nodes, and half of its memory is far: ", nodes,
                                        " ranks or a multiple keep each in one.")
                            : join_text("Ranks do not divide into ", nodes,
                                        " NUMA nodes: some reach across; a multiple of ", nodes,
                                        " does not."));
  if (tensor > 1 && placement.ranks_per_numa > 0 && placement.ranks_per_numa % tensor != 0 && nodes > 1)
    sentences.push_back(join_text("The ", tensor, " tensor ranks that share a layer talk across NUMA nodes: ",
                                  placement.ranks_per_numa, " ranks of a node are no multiple of them."));
  return sentences;
}

}  // namespace conclave
