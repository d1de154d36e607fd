// RunGuard: a training run that cannot go on says why and ends. While it lives, every rank keeps a journal in
// OUTPUT/ranks, and a watchdog looks for stalls. When mpirun ends the job because a rank died, a survivor on
// the same machine says which one and where it was. In an orderly end nothing of it stays.
#pragma once

#include <filesystem>
#include <memory>

#include "launch/train/recipe.h"
#include "parallel/watchdog.h"

namespace conclave {

class Communicator;

class RunGuard {
 public:
  /// Returns OUTPUT/ranks.
  static std::filesystem::path journals_of(const Recipe& recipe);

  /// It is made on every rank, after one of them has called clear_journals. `recipe.output` must be a
  /// directory.
  RunGuard(Communicator& world, const Recipe& recipe);
  ~RunGuard();
  /// Says whether this rank may speak for the job's end; among several that fail at once, one may.
  bool claims_last_word() const;
  RunGuard(const RunGuard&) = delete;
  RunGuard& operator=(const RunGuard&) = delete;

 private:
  void say(const std::string& sentence) const;
  void look_for_dead_ranks() const;

  Communicator& world_;
  std::filesystem::path output_;
  std::shared_ptr<Journal> journal_;
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace conclave
