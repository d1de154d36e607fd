// Trainer: one optimizer step after another, the same mathematics on every layout.
// A step: each rank takes its micro-batches of the global batch; totals of the step are agreed first, so that
// every loss is divided by global counts at once and everything after is a sum; forward and backward per
// micro-batch, with the gradient reduction under the last backward; then norm, clipping, optimizer.
#pragma once

#include <functional>
#include <optional>

#include "framework/data/batch.h"
#include "launch/train/model.h"
#include "launch/train/rank_parts.h"
#include "launch/train/step_clock.h"
#include "layers/moe/objectives.h"
#include "optim/optimizer.h"
#include "parallel/mesh.h"

namespace conclave {

/// The report of one step, equal on all ranks.
struct StepResult {
  std::int64_t step = 0;           // 1-based: steps done
  std::int64_t tokens = 0;         // real tokens of the step, all ranks
  std::int64_t target_tokens = 0;  // of them with a target
  double lm_loss = 0;              // mean over target tokens, nats
  double loss = 0;                 // the objective: lm_loss and all auxiliary terms, weighted
  double gradient_norm = 0;        // before clipping
  double learning_rate = 0;
  bool skipped = false;       // loss or gradients were not finite: parameters and optimizer are as they were
  std::string not_finite;     // where that was seen first
  bool no_targets = false;    // the global batch had nothing to learn from: no update, no losses, no counts
  bool stop = false;          // some rank was asked to stop
  std::vector<double> votes;  // of all ranks, summed
  BalanceReport balance;
};

class Trainer {
 public:
  /// Sequences first .. first + count - 1 of the global batch of a 0-based step.
  using BatchSource = std::function<Batch(std::int64_t step, std::int64_t first, std::int64_t count)>;
  /// Says whether this rank was asked to stop. Without such a function it never was.
  using StopQuestion = std::function<bool()>;

  Trainer(const Recipe& recipe, Mesh& mesh, BatchSource batches, Device& device = cpu_device(),
          const RouterMaker& router = make_router);

  /// Collective. Where the loss or a gradient is not finite, all ranks alike leave out the update; the step
  /// counts as done, so that its data are never met again. The same holds for a global batch without a
  /// target. `votes`: numbers of this rank, as many on each, that travel in the step's own all-reduce.
  /// `wants_stop`: is asked once, near the end of the step, and its answer travels with the votes.
  StepResult step(const std::vector<double>& votes = {}, const StopQuestion& wants_stop = {});

  std::int64_t steps_done() const { return steps_done_; }
  std::int64_t tokens_done() const { return tokens_done_; }
  std::int64_t updates() const { return optimizer_->updates(); }
  std::int64_t sequences_done() const { return sequences_done_; }
  const Model& model() const { return model_; }
  StepClock& clock() { return clock_; }
  /// The next step is the one after `step`, whatever was done before: after load(), to go on past data that
  /// did harm.
  void go_on_after(std::int64_t step, std::int64_t tokens, std::int64_t sequences) {
    steps_done_ = step;
    tokens_done_ = tokens;
    sequences_done_ = sequences;
  }

  /// Everything that the next step depends on: what this rank writes of it, in memory that the next step
  /// changes, and the numbers. Ranks that hold the same share in writing it, in shares of at least so many
  /// bytes.
  std::vector<RankPart> parts(std::int64_t least_share_bytes) const;
  Attributes attributes() const;
  /// Lets checkpoints say more, as a function of the steps done: where the data stand.
  void add_attributes(std::function<Attributes(std::int64_t steps_done)> more) {
    more_attributes_ = std::move(more);
  }
  /// The gradients of the last step, whole, under "gradient/NAME", and the values under "model/NAME".
  /// Collective.
  void gather_gradients(const TensorSink& sink) const;
  void gather_values(const TensorSink& sink) const;
  /// Goes on where the checkpoint ends; each rank reads its part alone. Fault::data if it does not fit.
  void load(const CheckpointReader& checkpoint);
  /// Begins a new run with these things of another one's checkpoint: parameters, optimizer, data_position.
  void take(const CheckpointReader& checkpoint, const std::vector<std::string>& things);

  /// Sequences that the run whose data_position this one took has seen: step 0 begins after them.
  std::int64_t sequences_skipped() const { return sequences_skipped_; }

 private:
  struct Totals {
    std::int64_t tokens, targets;
  };
  std::vector<Batch> take_batches() const;
  Totals agree_on_totals(const std::vector<Batch>& batches);
  /// Holds what ranks tell each other at the end of a step.
  struct Agreed {
    std::vector<double> sums;  // of the numbers that came
    bool stop = false;         // some rank was asked to stop
    std::vector<double> votes;
  };
  Agreed agree_on_sums(std::vector<double> sums, const std::vector<double>& votes,
                       const StopQuestion& wants_stop);
  StepResult step_without_targets(const Totals& totals, const std::vector<double>& votes,
                                  const StopQuestion& wants_stop);
  double learning_rate() const;
  /// Counts the step as done.
  void end_step(StepResult& result);
  /// Sentences about the first parameter whose gradient is not finite and, where the loss is not either,
  /// about the first layer whose output is not, found by another forward pass. Collective.
  std::string find_not_finite(const std::vector<ModelInput>& inputs, bool loss_is_finite);
  void count_experts(const std::vector<ModelInput>& inputs, Objectives::Step& objectives);
  /// This rank's, divided by the step's totals where it says nothing else.
  struct LossSums {
    double tokens = 0;  // over target tokens, undivided
    double cross_entropy = 0, auxiliary = 0;
    double gradient_squares = 0;  // GradientReducer::squares
  };
  /// Forward and backward of all micro-batches, and the gradients' reduction. The sums stay on the device
  /// until the end, where the host waits once for all of them.
  LossSums run_micro_batches(const std::vector<ModelInput>& inputs, const Totals& totals,
                             Objectives::Step& objectives);
  /// Optimizer, everybody's new values, and what methods learnt from the step.
  void update(const StepResult& result, Objectives::Step& objectives);
  /// The states that methods keep, in the order of checkpoints.
  std::vector<MethodState> method_states() const;
  void read_source(const CheckpointReader& checkpoint);
  /// load() and take() read the optimizer: first they check that its groups fit.
  void add_optimizer_groups(const CheckpointReader& checkpoint, std::vector<TensorGroup>& groups) const;
  void read_optimizer(const CheckpointReader& checkpoint);

  Recipe recipe_;
  Mesh& mesh_;
  BatchSource batches_;
  std::function<Attributes(std::int64_t)> more_attributes_;
  Device& device_;
  Model model_;
  Objectives objectives_;
  GradientReducer reducer_;
  std::unique_ptr<Optimizer> optimizer_;
  StepClock clock_;
  std::int64_t steps_done_ = 0, tokens_done_ = 0;
  std::int64_t sequences_done_ = 0;  // of this run
  std::int64_t sequences_skipped_ = 0;
  std::string source_;  // SourceFacts of the imported model that the parameters come from, as they came
};

}  // namespace conclave
