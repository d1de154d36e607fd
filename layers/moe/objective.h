// Objective: something that a method adds to the loss, reports, or moves after a step, from what routers
// leave behind. It is linear in what carries a gradient. Its factors come from reduced numbers that carry
// none. They are divided by totals of the step, so that terms of micro-batches and ranks are only summed.
#pragma once

#include <memory>
#include <vector>

#include "framework/autograd/ops/routing.h"
#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"
#include "layers/moe/method_state.h"

namespace conclave {

/// The model and the run that an objective is made for. It copies what it keeps.
struct ObjectiveFacts {
  const MoeRecipe& moe;
  ScopeFacts model;
  const MethodStates& states;  // of the model's routers
};

/// Factors of the statistics of all layers, to which every objective of a micro-step adds its own.
struct Factors {
  std::vector<double> probability_sums;  // [layers, sequences, experts]
  bool any_probability = false;          // whether some objective has added to them
  double z_sum = 0;                      // the same in all layers
};

class Objective {
 public:
  virtual ~Objective() = default;

  /// A step begins: asks for what it counts, and for sums over the step's ranks.
  virtual void want(const StepFacts&, ExpertCounts::Needs&, StepSums&) {}
  /// A micro-step: adds its factors, and to its sums. Returns a term of the loss that is no sum of statistics
  /// times factors, float64 [1]; an undefined variable is nothing.
  virtual Variable of_micro_step(Tape&, const RoutedMicroStep&, Factors&, StepSums&) { return {}; }
  /// The step has ended; its sums are those of all ranks.
  virtual void report(const StepOutcome&, const StepSums&, BalanceReport&) {}
  /// Puts what a step without targets reports: numbers that nobody knows.
  virtual void report_unknown(BalanceReport&) const {}
  /// The update was made: what it learnt from the step reported last enters its states. Left out after a step
  /// that was skipped.
  virtual void keep() {}
  /// The states that it keeps from step to step, beside those that routers read.
  virtual std::vector<ObjectiveState*> states() { return {}; }
};

}  // namespace conclave
