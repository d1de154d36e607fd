// TrainingRun: one run of `conclave train` from its start or its newest checkpoint to its last step, on one
// of its ranks. It takes the steps. Its observers do everything else (observers.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "framework/telemetry/logger.h"
#include "launch/train/checkpoint_choice.h"
#include "launch/train/directory_lock.h"
#include "launch/train/passes.h"
#include "launch/train/recipe.h"
#include "launch/train/rollbacks.h"
#include "launch/train/run/observers.h"
#include "launch/train/run/run_directory.h"
#include "launch/train/run/saves.h"
#include "launch/train/run_guard.h"
#include "launch/train/time_limit.h"
#include "launch/train/trainer.h"
#include "parallel/mesh.h"

namespace conclave {

class TrainingRun {
 public:
  /// The recipe must be valid on the ranks, and the same on all of them. `remark` is a sentence about the
  /// model that the run says at its beginning; none where it is empty. Collective, as is everything here.
  TrainingRun(const Recipe& recipe, const std::shared_ptr<Communicator>& world, std::string remark = "");

  /// The exit code: 0 when the last step is done, 75 when the run was stopped on request and saved. Error
  /// where it cannot go on.
  int run();

 private:
  /// Data, model and run directory; whatever is wrong on any rank ends all of them with one sentence.
  void prepare();
  void open_data_and_model();
  /// For a run directory without a checkpoint: takes what the recipe wants of another run's, and returns it.
  /// Collective.
  FoundCheckpoint take_from_another_run(std::vector<std::string>& changes);
  /// Lets methods of the routers learn what they need from the whole training text, where no checkpoint has
  /// told them. Collective.
  void learn_from_text();
  /// How often the run has gone over each dataset, and will have at its end.
  std::vector<DatasetPasses> passes();
  void describe();
  void take_step();
  void fulfil(Wish wish, const FinishedStep& step);
  /// For a run that ends before it opens its log: its sentence follows what an earlier start has logged.
  void append_to_earlier_log();
  void close();

  Recipe recipe_;
  std::string remark_;
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
  TimeLimit time_limit_;
  Rollbacks rollbacks_;
  std::unique_ptr<Saves> saves_;
  std::vector<std::unique_ptr<RunObserver>> observers_;
  double longest_step_ = 0;          // seconds
  bool stopped_ = false;             // the run ends before its last step
  bool is_saved_ = false;            // after the last step
  std::unique_ptr<RunGuard> guard_;  // last: it watches the end of all others
};

}  // namespace conclave
