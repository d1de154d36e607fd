// TrainingRun: one run of `conclave train` from its start or its newest checkpoint to its last step, on one
// of its ranks: steps, evaluations, checkpoints, and what is said about them. What a step does is Trainer's.
#pragma once

#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "framework/telemetry/logger.h"
#include "framework/telemetry/progress.h"
#include "launch/train/checkpoint_choice.h"
#include "launch/train/checkpointing.h"
#include "launch/train/dead_experts.h"
#include "launch/train/directory_lock.h"
#include "launch/train/loss_spikes.h"
#include "launch/train/passes.h"
#include "launch/train/recipe.h"
#include "launch/train/rollbacks.h"
#include "launch/train/run_directory.h"
#include "launch/train/run_guard.h"
#include "launch/train/step_profile.h"
#include "launch/train/time_limit.h"
#include "launch/train/trainer.h"
#include "parallel/mesh.h"

namespace conclave {

class TrainingRun {
 public:
  /// The recipe must be valid on the ranks, and the same on all of them. Collective, as is everything here.
  TrainingRun(const Recipe& recipe, const std::shared_ptr<Communicator>& world);

  /// The exit code: 0 when the last step is done, 75 when the run was stopped on request and saved. Error
  /// where it cannot go on.
  int run();

 private:
  static bool every(std::int64_t interval, std::int64_t step) { return interval > 0 && step % interval == 0; }
  /// Data, model and run directory; whatever is wrong on any rank ends all of them with one sentence.
  void prepare();
  /// Of a run directory without a checkpoint: what the recipe takes from another run's. Collective.
  FoundCheckpoint take_from_another_run();
  /// How often the run has gone over each dataset, and will have at its end.
  std::vector<DatasetPasses> passes();
  void describe();
  StepResult timed_step(Progress& progress);
  /// With logging.samples: what this rank has taken of the global batch, from this position on. Of ranks that
  /// share a sequence one tells of it.
  void note_samples(const Batch& batch, std::int64_t first);
  /// What all ranks have noted of a step, as they did: a position that two ranks took stands there twice.
  /// Collective.
  void write_samples(const StepResult& result);
  /// Says what is wrong with a step's numbers, once, with the data that the step was made of.
  void note_numbers(const StepResult& result);
  /// Such a step is no fault of the numbers: neither training.skip_limit nor the rollbacks count it.
  void note_missing_targets(const StepResult& result);
  void write_data_of(const StepResult& result);
  /// Parameters and optimizer of an older checkpoint, and the data after the steps that were skipped.
  void roll_back(const StepResult& result);
  /// The last step's update was skipped, so the run has not done what it was asked for. The state after the
  /// last update that was made is saved under its own step; then Fault::numeric on all ranks.
  [[noreturn]] void end_with_skipped_steps(const StepResult& result);
  /// No step of the run had a target, so there is nothing to save: Fault::numeric on all ranks.
  [[noreturn]] void end_without_an_update();
  /// This start did no step, as the evaluation that comes first was broken off. Where the time limit did
  /// that, every later start would end like it: Fault::request on all ranks.
  void refuse_a_limit_without_steps();
  void compare_ranks(const StepResult& result);
  /// Says whether an evaluation follows this step.
  bool is_evaluated(std::int64_t step) const;
  /// During an evaluation, on all ranks together: whether one of them was asked to stop. The save that is
  /// under way goes on meanwhile.
  bool stops_now();
  /// False when it was broken off, as the run is to stop; then nothing of it is recorded.
  bool validate(bool last);
  void save(Follows follows);
  /// What a save takes from its beginning until the checkpoint is there: the last one's, before the first a
  /// guess.
  double save_seconds() const;
  /// A run must not end as if its last state were safe when it is not.
  void finish_saving();
  /// For a run that ends before it opens its log: its sentence follows what an earlier start has logged.
  void append_to_earlier_log();
  void close();

  Recipe recipe_;
  Communicator& world_;
  Logger logger_;
  Device& device_;
  int threads_;
  Mesh mesh_;
  std::unique_ptr<TrainingData> training_;
  std::unique_ptr<ValidationData> validation_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<DirectoryLock> lock_;      // rank 0 only
  std::unique_ptr<RunDirectory> directory_;  // rank 0 only
  DeadExperts dead_experts_;                 // rank 0 only
  std::string samples_;                      // of the step, noted by this rank
  std::unique_ptr<StepProfile> profile_;     // null: not asked for
  double matrix_rate_ = 0;
  double final_loss_ = std::nan("");
  std::string resumed_recipe_;        // the recipe of the checkpoint that it resumes from
  std::vector<std::string> changes_;  // what differs from it
  TimeLimit time_limit_;
  Rollbacks rollbacks_;
  bool unsaved_ = false;                // updates were made since the last save
  std::int64_t first_updates_ = 0;      // of the optimizer when the run began, before its first step
  std::int64_t left_out_ = 0;           // steps without a target since this command began
  std::set<int> slow_ranks_;            // at the last comparison
  LossSpikes spikes_;                   // rank 0 only
  bool evaluation_is_missing_ = false;  // of the step that the run resumes after
  double longest_step_ = 0, evaluation_seconds_ = 0;
  double first_save_seconds_ = 0;  // a guess
  std::unique_ptr<Checkpointing> checkpointing_;
  std::unique_ptr<RunGuard> guard_;  // last: it watches the end of all others
};

}  // namespace conclave
