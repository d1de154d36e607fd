// Rollbacks: going back to an older checkpoint when numbers go wrong. The newest one comes first. When the
// steps right after it are skipped again, the trouble is in it, and the one before it is next.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/train/checkpoint_choice.h"
#include "launch/train/recipe.h"
#include "launch/train/trainer.h"

namespace conclave {

/// Loads a verified checkpoint into the trainer, or the newest one before it whose values are finite. Then
/// `path` becomes that one, and `rejected` says why newer ones were left out. Throws Fault::numeric where
/// none is finite. Collective.
void load_finite(Communicator& world, Trainer& trainer, std::filesystem::path& path,
                 std::vector<std::string>& rejected);

class Rollbacks {
 public:
  Rollbacks(Communicator& world, const TrainingRecipe& recipe) : world_(world), recipe_(recipe) {}

  /// Notes the result of a step, after each one.
  void note(const StepResult& result, const Trainer& trainer);
  /// Says whether so many steps in a row were skipped that the run must go back.
  bool are_due() const { return skipped_in_row_ >= recipe_.skip_limit; }
  std::int64_t skipped_in_row() const { return skipped_in_row_; }
  std::int64_t skipped() const { return skipped_; }
  /// Returns a sentence with the counts for a run whose last step was skipped, so that it has not done what
  /// it was asked for.
  std::string describe_end(const StepResult& result) const;
  /// Brings the trainer's place in the data back to the last update that was made, where its parameters are.
  void return_to_last_update(Trainer& trainer) const;

  /// Takes parameters and optimizer of a checkpoint, and the data after the steps that were skipped. `newest`
  /// is the run's last checkpoint; empty: none. Returns a sentence that says what was done. Throws
  /// Fault::numeric where the run must give up. Collective.
  std::string go_back(Trainer& trainer, const std::filesystem::path& newest, const StepResult& result);

 private:
  /// Loads the newest checkpoint that is whole, finite and worth a try, and returns its path. Newer ones that
  /// are damaged are set aside, with a sentence each. Collective.
  std::filesystem::path load_checkpoint(Trainer& trainer, const std::filesystem::path& newest,
                                        std::vector<std::string>& rejected);

  Communicator& world_;
  TrainingRecipe recipe_;
  std::int64_t steps_ = 0, skipped_in_row_ = 0, skipped_ = 0,
               times_ = 0;  // equal on all ranks, as is the rest
  struct {
    std::int64_t step = 0, tokens = 0, sequences = 0;
  } last_update_;
  std::filesystem::path newest_;  // when the run went back last
  std::filesystem::path base_;    // where it went back to
  bool was_good_ = false;         // a step since then was not skipped
};

}  // namespace conclave
