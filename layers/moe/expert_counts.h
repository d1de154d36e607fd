// ExpertCounts: how many of a step's tokens chose each expert, in the sets of tokens that its user asks for.
// Sets are sequences, micro-batches, all replicas' micro-batches, the whole step, or others. Counts are
// 64-bit integers from end to end. The counts of all layers cross the network together, where somebody asks
// for them: per micro-step in at most one all-reduce over all ranks and one over the ranks that share the
// micro-batch. Both are under way while the caller goes on computing.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "layers/moe/token_sets.h"
#include "parallel/communicator.h"

namespace conclave {

class ExpertCounts {
 public:
  using Counts = std::vector<std::int64_t>;  // [layers, experts] where nothing else is said

  /// The counts that the user wants in a step.
  struct Needs {
    bool sequences = false;    // each sequence of the micro-batch
    bool micro_batch = false;  // the micro-batch
    bool all_ranks = false;    // the micro-batches of all replicas at a micro-step, and what was seen so far
    bool whole_step = false;   // the whole step, before its first backward
    std::vector<std::unique_ptr<TokenSets>> sets;
  };
  /// The counts of a micro-step.
  struct Known {
    std::int64_t sequences = 0;
    Counts by_sequence;        // [layers, sequences, experts]; joined over the ranks that share the
    Counts micro_batch;        // micro-batch where that was asked for, and so is this
    Counts all_ranks;          // if asked for
    std::vector<Counts> sets;  // of Needs::sets: [layers, sets, experts]
  };
  class Step;
  class MicroStep;

  /// `all_tokens`: the ranks whose routers see different tokens of the step. `micro_batch`: those among them
  /// that share a replica's micro-batch (its tensor ranks); null: this rank has all of it.
  ExpertCounts(std::int64_t layers, std::int64_t experts, Communicator& all_tokens,
               Communicator* micro_batch);

  Step begin_step(const BatchPlace& place, Needs needs) const;

  /// True for the one rank that speaks for its micro-batch among the ranks that share it.
  bool speaks_for_micro_batch() const { return micro_batch_ == nullptr || micro_batch_->rank() == 0; }
  bool speaks_for_all() const { return all_tokens_.rank() == 0; }

 private:
  std::int64_t layers_, experts_;
  Communicator& all_tokens_;
  Communicator* micro_batch_;
};

/// A step under way.
class ExpertCounts::Step {
 public:
  Step(const ExpertCounts& counts, const BatchPlace& place, Needs needs);
  Step(const Step&) = delete;

  const Needs& needs() const { return needs_; }
  /// Says if the readings that are counted must hold the chosen experts.
  ReadChosen reads_chosen() const;
  bool speaks_for_micro_batch() const { return of_.speaks_for_micro_batch(); }
  bool speaks_for_all() const { return of_.speaks_for_all(); }

  /// True where only a forward pass over all micro-batches ahead of the step can tell what is asked for. Then
  /// count_ahead() each in order, and finish_counting_ahead(), which is collective.
  bool needs_counting_pass() const;
  void count_ahead(const std::vector<RouterReading>& layers);
  void finish_counting_ahead();

  /// Collective where other ranks are asked about; returns with the counts still under way.
  MicroStep begin_micro_step(const std::vector<RouterReading>& layers);

  /// The counts of all ranks' micro-steps so far, as far as they are known; with Needs::all_ranks.
  const Counts& seen() const { return seen_; }
  /// The counts of the whole step; with Needs::whole_step.
  const Counts& step_ahead() const { return needs_counting_pass() ? ahead_ : seen_; }
  /// Ends the step: what all of it counted. Collective unless every micro-step was.
  Counts end();

 private:
  friend MicroStep;
  /// An all-reduce of integers that may still be under way.
  class Reduction {
   public:
    void start(const Counts& counts, Communicator& ranks);
    bool started() const { return tensor_.defined(); }
    Counts finish();

   private:
    Tensor tensor_;
    Request request_;
  };

  const ExpertCounts& of_;
  BatchPlace place_;
  Needs needs_;
  std::int64_t micro_steps_ahead_ = 0, micro_steps_ = 0;
  Counts own_, seen_, ahead_;
  std::vector<Counts> sets_ahead_;  // of sets that reach beyond a micro-step; empty for the others
  Known now_;
  Reduction of_micro_batch_, of_all_, of_step_;
};

/// A micro-step that has begun, until the next one does.
class ExpertCounts::MicroStep {
 public:
  explicit MicroStep(Step& step) : step_(step) {}
  /// Waits for the counts that are under way.
  const Known& counts();

 private:
  Step& step_;
};

/// [layers, sets, experts] -> [layers, experts]
ExpertCounts::Counts sum_over_sets(const ExpertCounts::Counts& counts, std::int64_t layers,
                                   std::int64_t experts);

}  // namespace conclave
