// Seconds of a collective from its bytes, its ranks and the machine. They follow the known algorithms under
// Hockney's model, message by message, over ranks that lie on nodes. Messages that leave a node in a round
// share the node's link with those of its other ranks, which are sent at the same time. The load of other
// jobs on a network, and the cost of its topology, are left out.
//
// Sources: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH,
// IJHPCA 19 (2005); Chan, Heimlich, Purkayastha and van de Geijn, Collective communication: theory, practice,
// and experience, CCPE 19 (2007).
#pragma once

#include <cstdint>

#include "launch/plan/machine.h"

namespace conclave {

/// A group has the ranks that communicate: first, first + stride, and so on. Every rank of the machine is in
/// one such group. All groups communicate at once, as the folds of a mesh do.
struct RankGroup {
  std::int64_t ranks = 1;
  std::int64_t stride = 1;
};

class CollectiveTime {
 public:
  /// `job_ranks` counts the ranks of all groups together; they fill nodes of machine.ranks_per_node. Throws
  /// Fault::request when they need several nodes and the machine has one.
  CollectiveTime(const MachineModel& machine, std::int64_t job_ranks);

  // All results are in seconds, and 0 for a group of one. There are p ranks, and each message takes the time
  // of message().

  /// Every rank has n bytes. Each algorithm adds them up, and the best for this n is taken:
  ///   recursive doubling: log2(p) rounds of n
  ///   ring: 2 (p - 1) rounds of n / p
  ///   Rabenseifner: recursive halving, then doubling
  double all_reduce(RankGroup group, double bytes) const;
  double all_reduce_by_doubling(RankGroup group, double bytes) const;
  double all_reduce_by_ring(RankGroup group, double bytes) const;
  double all_reduce_by_halving(RankGroup group, double bytes) const;
  /// The bytes go through a binomial tree to one rank and back, in 2 ceil(log2 p) rounds of n.
  double all_reduce_by_tree(RankGroup group, double bytes) const;
  /// The result has n bytes, n / p from each rank. The best for this n is taken:
  ///   ring: p - 1 rounds of n / p
  ///   recursive doubling: rounds of n / p, 2 n / p, ...
  double all_gather(RankGroup group, double bytes) const;
  double all_gather_by_ring(RankGroup group, double bytes) const;
  double all_gather_by_doubling(RankGroup group, double bytes) const;
  /// Every rank has n bytes, and receives n / p of the sum. It is an all-gather backwards, and adds up
  /// (p - 1) / p n.
  double reduce_scatter(RankGroup group, double bytes) const;
  double reduce_scatter_by_ring(RankGroup group, double bytes) const;
  double reduce_scatter_by_halving(RankGroup group, double bytes) const;
  /// Each rank has n bytes, n / p for each of the group. All messages are posted at once, as MPI_Ialltoallv
  /// does.
  double all_to_all(RankGroup group, double bytes) const;

 private:
  /// Times one message of n bytes to a rank `distance` members away, while all ranks of a node send one.
  double message(RankGroup group, double distance, double bytes) const;
  /// Times one message of n bytes to another node, while one member of each group on the node sends one.
  double crossing(RankGroup group, double bytes) const;
  /// Times the slowest message of a round in which each member sends to the next.
  double ring_message(RankGroup group, double bytes) const;
  /// Times log2(p) rounds; the message of round i has bytes(i).
  template <class Bytes>
  double rounds(RankGroup group, Bytes bytes) const;
  std::int64_t members_per_node(RankGroup group) const;
  double adding(double bytes) const;

  MachineModel machine_;
  double ranks_per_node_;  // ranks that a node really has
  double sharing_;         // ranks per processor, at least 1: copying ranks hold each other up
};

}  // namespace conclave
