// What a recipe will ask of each rank: its share of the batch, its memory, its bytes on the network. Counted
// from the recipe alone, so that `conclave validate --ranks 64` plans on a laptop. Parameters, gradients,
// moments and network bytes are exact; activations are an estimate, and its formula is written where it is
// computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "framework/recipe/recipe.h"

namespace conclave {

struct LayoutPlan {
  std::int64_t ranks = 1;
  std::int64_t data_ranks = 1;
  std::int64_t micro_steps = 1;             // micro-batches that a rank computes per step
  std::int64_t tokens_per_step = 0;         // of all ranks
  std::int64_t tokens_per_micro_batch = 0;  // of one rank
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
  double activations = 0;                   // estimate for one micro-batch
  std::vector<NamedBytes> largest_buffers;  // largest first; parts of the sums above

  double total() const { return parameters + gradients + moments + activations; }
};

/// In bytes that each rank sends per step.
struct NetworkPlan {
  double gradients = 0;   // ring all-reduce: 2 (D - 1) / D of the gradients
  double statistics = 0;  // expert counts of all layers, one all-reduce per micro-step

  double total() const { return gradients + statistics; }
};

LayoutPlan plan_layout(const Recipe& recipe, int ranks);
MemoryPlan plan_memory(const Recipe& recipe);
NetworkPlan plan_network(const Recipe& recipe, int ranks);

}  // namespace conclave
