// MachineModel: what plan_time() needs to know of a machine, as rates of one processor (a core, or a GPU) and
// of the network. Each number is measured by `conclave bench --machine FILE` or taken from a data sheet. The
// model is kept as a YAML file that a reader can change. It leaves out caches, other jobs, and the shape of a
// network beyond "within a node" and "between nodes".
#pragma once

#include <cstdint>
#include <string>

#include "launch/train/recipe.h"

namespace conclave {

/// The seconds of a matrix product are
///   operations / operations_per_second + bytes of its three matrices / operand_bytes_per_second
/// The second term is what makes small products slow: operands are read, packed and written. The sum counts
/// and not the larger term, since neither hides the other wholly.
struct ProductRates {
  double operations_per_second = 0;
  double operand_bytes_per_second = 0;
};

/// A message of n bytes takes latency_seconds + n / bytes_per_second (Hockney, Parallel Computing 20, 1994).
/// Where messages are sent at once, each further one takes message_seconds (the overhead o of LogGP,
/// Alexandrov et al., SPAA 1995).
struct LinkRates {
  double latency_seconds = 0;
  double message_seconds = 0;
  double bytes_per_second = 0;  // within a node: of each rank while all send; between nodes: of a node
};

struct MachineModel {
  std::string name = "a machine";
  NumberFormat precision = NumberFormat::fp32;  // of the recipes that these rates are for
  std::int64_t processors_per_node = 1;
  std::int64_t ranks_per_node = 1;

  // These are rates of one processor while the others of its node do the same.
  ProductRates products;          // of one large weight: projections, the LM head
  ProductRates grouped_products;  // of many experts with few rows each
  double attention_operations_per_second = 0;
  double scores_per_second = 0;           // numbers through attention's softmax, forward
  double pass_bytes_per_second = 0;       // activations: norms, rotations, sums, permutations
  double exponentials_per_second = 0;     // numbers through SwiGLU or the loss
  double optimizer_bytes_per_second = 0;  // through AdamW, from memory
  double call_seconds = 0;                // of a kernel that has nothing to do

  LinkRates within_node;                // bytes_per_second 0: unknown, plans are for one rank
  LinkRates between_nodes;              // bytes_per_second 0: there is one node
  double reduced_bytes_per_second = 0;  // added up in a collective, by a rank
  double overlap = 0;                   // 0 .. 1: the part of the computing time that the network can use too
  std::string nonblocking_all_reduce =
      "best";  // best | tree: what MPI_Iallreduce in place does (Open MPI: tree)
};

/// Reads a description strictly: every key is there once, none is unknown, and numbers are above zero where
/// they divide. Throws Fault::request with file and line.
MachineModel load_machine(const std::string& path);
MachineModel parse_machine(const std::string& text, const std::string& source);

/// Writes the machine as YAML that reads back to equal numbers, each key with its meaning.
std::string to_yaml(const MachineModel& machine);

}  // namespace conclave
