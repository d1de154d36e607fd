// Seconds of a collective from its bytes, its ranks and the machine: the known algorithms under Hockney's
// model, message by message, over ranks that lie on nodes. Rounds whose messages leave a node share the
// node's link with those of its other ranks, which do the same at the same time. What other jobs do to a
// network, and what its topology costs, is left out.
//
// Sources: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH,
// IJHPCA 19 (2005); Chan, Heimlich, Purkayastha and van de Geijn, Collective communication: theory, practice,
// and experience, CCPE 19 (2007).
#pragma once

#include <cstdint>

#include "launch/plan/machine.h"

namespace conclave {

/// Ranks that communicate: first, first + stride, ... Every rank of the machine is in one such group, and all
/// groups communicate at once, as the folds of a mesh do.
struct RankGroup {
  std::int64_t ranks = 1;
  std::int64_t stride = 1;
};

class CollectiveTime {
 public:
  /// `job_ranks`: of all groups together; they fill nodes of machine.ranks_per_node. Fault::request when they
  /// need several nodes and the machine has one.
  CollectiveTime(const MachineModel& machine, std::int64_t job_ranks);

  // In seconds; 0 for a group of one. p ranks, each message's time as message() has it.

  /// n bytes on every rank. Recursive doubling: log2(p) rounds of n. Ring: 2 (p - 1) rounds of n / p.
  /// Rabenseifner: recursive halving, then doubling. All add up; the best for this n is taken.
  double all_reduce(RankGroup group, double bytes) const;
  double all_reduce_by_doubling(RankGroup group, double bytes) const;
  double all_reduce_by_ring(RankGroup group, double bytes) const;
  double all_reduce_by_halving(RankGroup group, double bytes) const;
  /// A binomial tree to one rank and back: 2 ceil(log2 p) rounds of n.
  double all_reduce_by_tree(RankGroup group, double bytes) const;
  /// n bytes in the result, n / p of each rank. Ring: p - 1 rounds of n / p. Recursive doubling: rounds of
  /// n / p, 2 n / p, ... The best for this n.
  double all_gather(RankGroup group, double bytes) const;
  double all_gather_by_ring(RankGroup group, double bytes) const;
  double all_gather_by_doubling(RankGroup group, double bytes) const;
  /// n bytes on every rank, n / p of the sum for each: the same backwards, and adding up (p - 1) / p n.
  double reduce_scatter(RankGroup group, double bytes) const;
  double reduce_scatter_by_ring(RankGroup group, double bytes) const;
  double reduce_scatter_by_halving(RankGroup group, double bytes) const;
  /// n bytes of each rank, n / p for each of the group: all messages posted at once, as MPI_Ialltoallv does.
  double all_to_all(RankGroup group, double bytes) const;

 private:
  /// One message of n bytes, while all ranks of a node send one: to a rank `distance` members away.
  double message(RankGroup group, double distance, double bytes) const;
  /// One message of n bytes to another node, while one member of each group on the node sends one.
  double crossing(RankGroup group, double bytes) const;
  /// The slowest message of a round in which each member sends to the next.
  double ring_message(RankGroup group, double bytes) const;
  /// Of log2(p) rounds; the message of round i has bytes(i).
  template <class Bytes>
  double rounds(RankGroup group, Bytes bytes) const;
  std::int64_t members_per_node(RankGroup group) const;
  double adding(double bytes) const;

  MachineModel machine_;
  double ranks_per_node_;  // that there are
  double sharing_;         // ranks per processor, at least 1: who copies is held up by others
};

}  // namespace conclave
