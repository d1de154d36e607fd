// Objectives: all that methods add to the loss of a model's routers, at the end of each forward pass.
// expert_counts.h says what is counted, and when counts cross the network.
//
// begin_step() returns an object whose functions may only be called in a step. Its begin_micro_step() returns
// one whose functions may only be called in a micro-step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "layers/moe/objective.h"

namespace conclave {

class Objectives {
 public:
  class Step;
  class MicroStep;

  /// `all_tokens`: the ranks whose routers see different tokens of the step. `micro_batch`: those among them
  /// that share a replica's micro-batch (its tensor ranks); null: this rank has all of it. The seed is for
  /// what is drawn; `states`: what the model's routers read.
  Objectives(const MoeRecipe& moe, std::int64_t layers, Communicator& all_tokens,
             Communicator* micro_batch = nullptr, std::uint64_t seed = 0, const MethodStates& states = {});

  /// step_tokens: the real tokens of the whole step, known before the first backward.
  Step begin_step(std::int64_t step, std::int64_t step_tokens, const BatchPlace& place = {});

  /// The states that objectives keep from step to step, beside those that routers read. Part of a checkpoint.
  std::vector<ObjectiveState*> states() const;
  /// The report of a step without targets.
  BalanceReport unknown() const;

 private:
  std::int64_t layers_, experts_;
  Communicator& all_tokens_;
  ExpertCounts counts_;
  std::vector<std::unique_ptr<Objective>> all_;
};

/// A step under way.
class Objectives::Step {
 public:
  Step(Objectives& objectives, const StepFacts& facts);
  Step(const Step&) = delete;

  /// Under gradient accumulation some objectives want a forward-only pass over all micro-batches first:
  /// count() each in order, then finish_counting(), which is collective.
  bool needs_counting_pass() const { return counts_.needs_counting_pass(); }
  void count(const std::vector<RouterStatistics>& layers) {
    counts_.count_ahead(read_routers(layers, counts_.reads_chosen()));
  }
  void finish_counting() { counts_.finish_counting_ahead(); }

  /// Once per micro-batch, in order: what its routers left behind; waits for their device. Collective when an
  /// objective counts what other ranks hold, and then does not wait for them: computing may go on while the
  /// counts travel.
  MicroStep begin_micro_step(const std::vector<RouterStatistics>& layers);

  /// Collective: ends the step with sums over all ranks.
  BalanceReport end();
  /// After end(), where the update was made: what methods learnt from this step enters their states.
  void keep();

 private:
  friend MicroStep;
  ExpertCounts::Needs needs();

  Objectives& of_;
  StepFacts facts_;
  StepSums sums_;  // this rank's, until the end
  ExpertCounts::Step counts_;
  std::int64_t micro_steps_done_ = 0;
};

/// A micro-step that has begun, until the next one does.
class Objectives::MicroStep {
 public:
  MicroStep(Step& step, std::vector<RouterStatistics> layers, std::vector<RouterReading> readings)
      : step_(step),
        layers_(std::move(layers)),
        readings_(std::move(readings)),
        counts_(step.counts_.begin_micro_step(readings_)) {}

  /// The weighted auxiliary objective of this micro-batch, float64 [1] on the device of the statistics; where
  /// no layer has experts, 0 on `device`.
  Variable objective(Tape& tape, Device& device = cpu_device());

 private:
  Step& step_;
  std::vector<RouterStatistics> layers_;
  std::vector<RouterReading> readings_;
  ExpertCounts::MicroStep counts_;
};

}  // namespace conclave
