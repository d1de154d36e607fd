// What a recipe will ask of each rank: its share of the batch, its memory, its bytes on the network. Counted
// from the recipe alone, so that `conclave validate --ranks 256` plans on a laptop. Parameters, gradients,
// moments and network bytes are exact, those of the exchange with experts given the rows that are exchanged;
// activations come from a walk through a step with sizes alone. Memory is what the device hands out; what
// libraries take beside it (oneDNN's packed matrices, MPI's buffers) is not in it. The formulas are written
// where they are computed: plan.cpp, plan_memory.cpp, plan_network.cpp.
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

/// What one rank exchanges with its expert group in one block's forward pass over one micro-batch. A row is
/// one token on its way to one expert; with expert_tensor ranks it goes to each of them.
struct ExchangeRows {
  /// Of what a rank sends and computes, the part of one round.
  struct Round {
    double sent = 0;
    double computed = 0;
  };
  double sent = 0;            // of this rank's tokens, to all ranks and itself
  double leaving = 0;         // of those, to other ranks
  double arriving = 0;        // from other ranks
  double computed = 0;        // by this rank's experts; all that a dispatcher without exchange needs to say
  std::vector<Round> rounds;  // one, or more under dispatch_rows
};

/// In bytes per rank. Doubles, so that an absurd recipe gives an absurd number and not an overflow.
struct MemoryPlan {
  double parameters = 0;
  double rounded_parameters = 0;  // bf16: the copy that ops read
  double gradients = 0;
  double moments = 0;            // AdamW keeps two numbers per parameter
  double pieces = 0;             // tables of where the optimizer's elements and the norm's lie
  double reduced_gradients = 0;  // zero 1: what the reduce-scatters bring
  double selection_bias = 0;     // of the routers
  double rounding = 0;           // of the buffers above to the allocator's sizes
  double snapshot = 0;           // what the rank saves, copied beside training; shared out over replicas
  double activations = 0;        // the most that one micro-batch needs at once, with even_rows()
  double worst_activations =
      0;  // the same with worst_rows(), or, if that needs more, just under dispatch_rows
  std::vector<NamedBytes> largest_buffers;  // largest first; parts of the expected sums above

  double states() const {
    return parameters + rounded_parameters + gradients + moments + pieces + reduced_gradients +
           selection_bias + rounding;
  }
  /// Of the device while it trains; on a CPU the snapshot comes on top.
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

/// Of one block and micro-batch, all its forward passes and its backward.
struct ExchangeBytes {
  double dispatch = 0;
  double combine = 0;
};

// For all of these the recipe must be valid on the ranks.
LayoutPlan plan_layout(const Recipe& recipe, int ranks);
std::vector<ParameterPlan> plan_parameters(const Recipe& recipe, int ranks);

/// When all ranks see as many rows; when all tokens choose this rank's experts.
ExchangeRows even_rows(const Recipe& recipe, const LayoutPlan& layout);
ExchangeRows worst_rows(const Recipe& recipe, const LayoutPlan& layout);
/// Of rank `rank` of an expert group, when `sent` says who sends how many rows to whom: [sender, receiver],
/// row-major.
ExchangeRows rows_of_rank(const Recipe& recipe, const std::vector<std::int64_t>& sent, int rank);

MemoryPlan plan_memory(const Recipe& recipe, int ranks);
/// MemoryPlan::activations when the blocks with experts exchange these rows, one element per such block.
double plan_activations(const Recipe& recipe, int ranks, const std::vector<ExchangeRows>& exchanges);

NetworkPlan plan_network(const Recipe& recipe, int ranks);
/// Of all_to_all. Forward the rows leave (dispatch) and the answers to what arrived go back (combine);
/// backward the gradients of the answers leave again (combine) and those of the rows go back (dispatch).
/// Before the rows of each round go int64 counts of the receivers' experts, and with dispatch_rows first an
/// int64 per rank of the group, in every forward pass. Rounds are computed once more in backward.
ExchangeBytes exchange_bytes(const Recipe& recipe, const LayoutPlan& layout, const ExchangeRows& rows);

}  // namespace conclave
