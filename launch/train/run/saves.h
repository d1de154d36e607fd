// Saves: the checkpoints of one run in its own directory, and the ways back to them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "framework/telemetry/logger.h"
#include "launch/train/checkpointing.h"
#include "launch/train/directory_lock.h"
#include "launch/train/recipe.h"
#include "launch/train/rollbacks.h"
#include "launch/train/trainer.h"

namespace conclave {

class Saves {
 public:
  /// `lock`: null except on rank 0. `before_save`: rank 0 does this before each save, and its failure is the
  /// save's. `resumed_from`: the checkpoint that the run goes on from; empty: none.
  Saves(const Recipe& recipe, Trainer& trainer, const DirectoryLock* lock, std::filesystem::path resumed_from,
        std::function<void()> before_save, Communicator& world, Logger& logger);

  /// Saves the trainer's state as it is now. Collective.
  void save(Follows follows);
  /// Gives the trainer the parameters and the optimizer of an older checkpoint, and the data after the steps
  /// that were skipped. Returns a sentence that says so. Collective.
  std::string go_back(Rollbacks& rollbacks, const StepResult& result);
  /// Waits until nothing is being saved. A run must not end as if its last state were safe when it is not:
  /// then this is an Error on all ranks. Collective.
  void finish();

  /// Says whether updates were made since the last save or the last way back.
  bool misses_updates() const { return trainer_.updates() != kept_updates_; }
  /// How long a save takes from its beginning until the checkpoint is there: the last one, or a guess before
  /// the first.
  double seconds() const;

  Checkpointing& checkpointing() { return checkpointing_; }

 private:
  void check_place();

  Trainer& trainer_;
  const DirectoryLock* lock_;
  std::function<void()> before_save_;
  Communicator& world_;
  Checkpointing checkpointing_;
  std::int64_t kept_updates_;
  double guessed_seconds_;
};

}  // namespace conclave
