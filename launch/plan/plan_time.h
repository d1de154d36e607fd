// How long a step will take on a described machine. Its computing and sending is read off the dry run. Every
// kernel takes its operations and bytes at the machine's rates, and every collective its algorithm's messages
// (collective_time.h). The plan assumes that all ranks see as many rows for their experts, and that documents
// are as long as sequences. It also assumes that no rank waits for a slower one, and that data and
// checkpoints cost nothing. So a step takes at least this long where the rates are right.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/plan/dry_run.h"
#include "launch/plan/machine.h"

namespace conclave {

struct NamedSeconds {
  std::string name;
  double seconds;
};

/// A TimePlan is of one step of one rank, in seconds.
struct TimePlan {
  std::vector<NamedSeconds> computing;  // by part of the model
  std::vector<NamedSeconds> network;    // by purpose, as if nothing were hidden
  double hidden = 0;                    // of the network's, under computing

  double computing_seconds() const;
  double network_seconds() const;
  double seconds() const { return computing_seconds() + network_seconds() - hidden; }
};

/// The recipe must be valid on the ranks. Throws Fault::request where the machine's rates are for another
/// precision, or where it is one node and the ranks need several.
TimePlan plan_time(const Recipe& recipe, int ranks, const MachineModel& machine, const DryStep& step);
TimePlan plan_time(const Recipe& recipe, int ranks, const MachineModel& machine);

/// Returns the processors that one of `ranks` ranks on a node computes with, below 1 where ranks share one.
/// training.threads bounds them.
double processors_of_rank(const Recipe& recipe, int ranks, const MachineModel& machine);

/// Counts the scores that attention computes for a sequence and head: blocks of 64 queries with all keys up
/// to the block's end (kernels/cpu/attention.cpp).
double attention_scores(std::int64_t length);

/// Returns the bytes of a product's three matrices, [m, k] times [k, n], by the size of their element.
inline double operand_bytes(double m, double n, double k, double element) {
  return (m * k + k * n + m * n) * element;
}

}  // namespace conclave
