// NetworkTime: how long the collectives of a step take on a described machine, by purpose, as if nothing were
// hidden behind computing; part of plan_time.h. What crosses nodes follows from the folds (parallel/mesh.h):
// tensor and expert_tensor ranks are neighbours, data ranks a tensor group apart, copies of experts an expert
// group.
#pragma once

#include <cstdint>

#include "framework/recipe/collective_time.h"
#include "framework/recipe/machine.h"
#include "framework/recipe/plan.h"

namespace conclave {

/// Of one rank and step, in seconds. The recipe and the machine must outlive it.
class NetworkTime {
 public:
  NetworkTime(const Recipe& recipe, int ranks, const MachineModel& machine);

  struct Gradients {
    double seconds = 0;
    double last = 0;  // of the bucket that nothing can hide
  };
  Gradients gradients() const;
  double parameters() const;
  /// As activation_bytes() of plan_network.cpp counts them.
  double activations() const;
  double dispatch() const;
  double combine() const;
  /// About four small all-reduces a step and one a micro-batch carry the bytes of plan_network().
  double statistics() const;

 private:
  double blocks() const;
  double exchanged_rows() const;
  double reduction(RankGroup group, double bytes) const;
  /// Calls action(group, bytes of all gradients, bytes of one bucket) for each kind of replicas. A bucket is
  /// closed when it holds 4 MiB, so that a larger parameter has one of its own (gradient_reducer.h).
  template <class Action>
  void for_each_group(const Action& action) const;

  const Recipe& recipe_;
  const MachineModel& machine_;
  LayoutPlan layout_;
  std::int64_t ranks_;
  CollectiveTime time_;
  RankGroup tensor_, experts_;
};

}  // namespace conclave
