// Plan: the share of the batch, the memory and the bytes on the network of each rank of a recipe. With it
// `conclave validate --ranks 256` plans on a laptop. All of it is read off a dry run (dry_run.h) of the first
// rank. Bytes are exact where tokens go to experts as evenly as the plan expects. Memory is what the device
// hands out; it does not contain what libraries take beside it (oneDNN's packed matrices, MPI's buffers).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/plan/dry_run.h"

namespace conclave {

struct LayoutPlan {
  std::int64_t ranks = 1;
  std::int64_t data_ranks = 1;              // replicas of what tensor ranks share
  std::int64_t expert_data_ranks = 1;       // replicas of each expert
  std::int64_t micro_steps = 1;             // micro-batches that a rank computes per step
  std::int64_t tokens_per_step = 0;         // of all ranks
  std::int64_t tokens_per_micro_batch = 0;  // of one data rank
  std::int64_t tokens_per_shard = 0;        // of those, the ones that one rank routes
  std::int64_t expected_expert_rows = 0;    // per block and rank, when all ranks see as many
  std::int64_t worst_expert_rows = 0;  // likewise, when all tokens choose this rank; dispatch_rows bounds it
};

struct NamedBytes {
  std::string name;
  double bytes;
};

/// A MemoryPlan is in bytes per rank. The numbers are doubles, so that an absurd recipe gives an absurd
/// number and not an overflow.
struct MemoryPlan {
  double parameters = 0;
  double rounded_parameters = 0;  // bf16: the copy that ops read
  double gradients = 0;
  double moments = 0;            // AdamW keeps two numbers per parameter
  double pieces = 0;             // tables of where the optimizer's elements and the norm's lie
  double reduced_gradients = 0;  // zero 1: what the reduce-scatters bring
  double router_states = 0;      // what methods keep for the routers
  double rounding = 0;           // of the buffers above to the allocator's sizes
  double snapshot = 0;           // what the rank saves, copied beside training; shared out over replicas
  double activations = 0;        // the most that a step needs at once, when all ranks see as many rows
  double worst_activations = 0;  // when all tokens go to this rank; or just as many as dispatch_rows lets
                                 // through at once, if that needs more
  std::vector<NamedBytes> largest_buffers;  // largest first; parts of the expected sums above

  double states() const {
    return parameters + rounded_parameters + gradients + moments + pieces + reduced_gradients +
           router_states + rounding;
  }
  /// Returns the bytes of the device while it trains; on a CPU the snapshot comes on top.
  double total() const { return states() + activations; }
  double worst_total() const { return states() + worst_activations; }
};

/// A NetworkPlan is in bytes per rank and step, with one member per Purpose. It counts as Traffic does
/// (parallel/communicator.h): the payload that a rank hands over for other ranks. Checkpoints and evaluation
/// come on top, and 8 bytes at the start of a run.
struct NetworkPlan {
  double gradients = 0;
  double parameters = 0;
  double activations = 0;
  double dispatch = 0;
  double combine = 0;
  double statistics = 0;

  double total() const { return gradients + parameters + activations + dispatch + combine + statistics; }
};

// The recipe must be valid on the ranks for all of these. They throw Fault::request where it is too large to
// be planned.
LayoutPlan plan_layout(const Recipe& recipe, int ranks);
/// Takes the step that is planned, with tokens spread evenly over experts.
DryStep plan_step(const Recipe& recipe, int ranks);
MemoryPlan plan_memory(const Recipe& recipe, int ranks, const DryStep& step);
NetworkPlan plan_network(const DryStep& step);

inline MemoryPlan plan_memory(const Recipe& recipe, int ranks) {
  return plan_memory(recipe, ranks, plan_step(recipe, ranks));
}
inline NetworkPlan plan_network(const Recipe& recipe, int ranks) {
  return plan_network(plan_step(recipe, ranks));
}

}  // namespace conclave
