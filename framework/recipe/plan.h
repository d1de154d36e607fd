// What a recipe will ask of each rank: its share of the batch, its memory, its bytes on the network. Counted
// from the recipe alone, so that `conclave validate --ranks 256` plans on a laptop. Parameters, gradients,
// moments and network bytes are exact (of the dispatch: for routing that loads all ranks evenly); activations
// are an estimate. The formulas are written where they are computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "framework/recipe/recipe.h"

namespace conclave {

struct LayoutPlan {
  std::int64_t ranks = 1;
  std::int64_t data_ranks = 1;              // replicas of what tensor ranks share
  std::int64_t expert_data_ranks = 1;       // replicas of each expert
  std::int64_t micro_steps = 1;             // micro-batches that a rank computes per step
  std::int64_t tokens_per_step = 0;         // of all ranks
  std::int64_t tokens_per_micro_batch = 0;  // of one data rank
  std::int64_t tokens_per_shard = 0;        // of those, the ones that one rank routes
  std::int64_t expected_expert_rows = 0;    // that a rank's experts see per block, when all ranks see as many
  std::int64_t worst_expert_rows = 0;       // when all tokens choose this rank; dispatch_rows bounds it
};

/// Parameters of equal size and placement.
struct ParameterPlan {
  std::string name;
  std::int64_t count = 0;     // how many of them the model has
  std::int64_t elements = 0;  // of one, on one rank
  std::int64_t replicas = 1;  // ranks that hold the same part and add up their gradients
};

struct NamedBytes {
  std::string name;
  double bytes;
};

/// In bytes per rank. Doubles, so that an absurd recipe gives an absurd number and not an overflow.
struct MemoryPlan {
  double parameters = 0;
  double gradients = 0;
  double moments = 0;                       // AdamW keeps two numbers per parameter
  double reduced_gradients = 0;             // zero 1: what the reduce-scatters bring
  double activations = 0;                   // estimate for one micro-batch, expected rows of experts
  double worst_activations = 0;             // the same with the worst
  std::vector<NamedBytes> largest_buffers;  // largest first; parts of the expected sums above

  double states() const { return parameters + gradients + moments + reduced_gradients; }
  double total() const { return states() + activations; }
  double worst_total() const { return states() + worst_activations; }
};

/// In bytes per rank and step, one member per Purpose, counted as Traffic counts them
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

/// The recipe must be valid on these ranks.
LayoutPlan plan_layout(const Recipe& recipe, int ranks);
std::vector<ParameterPlan> plan_parameters(const Recipe& recipe, int ranks);
MemoryPlan plan_memory(const Recipe& recipe, int ranks);
NetworkPlan plan_network(const Recipe& recipe, int ranks);

}  // namespace conclave
