#include "launch/train/run/saves.h"

#include <utility>

#include "launch/train/model_size.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

CheckpointingOptions options_of(const Recipe& recipe, const DirectoryLock* lock,
                                std::filesystem::path resumed_from) {
  return {.keep = recipe.checkpoint.keep,
          .asynchronous = recipe.checkpoint.asynchronous,
          .check_place = [lock] { lock->check_ours(); },
          .resumed_from = std::move(resumed_from)};
}

/// Values and two moments at 200 MB/s.
double guess_seconds(const Recipe& recipe) {
  return 0.2 +
         3 * count_parameters(recipe.model).total() *
             static_cast<double>(element_bytes(sum_type(dtype_of_precision(recipe.training.precision)))) /
             200e6;
}

}  // namespace

Saves::Saves(const Recipe& recipe, Trainer& trainer, const DirectoryLock* lock,
             std::filesystem::path resumed_from, std::function<void()> before_save, Communicator& world,
             Logger& logger)
    : trainer_(trainer),
      lock_(lock),
      before_save_(std::move(before_save)),
      world_(world),
      checkpointing_(std::filesystem::path(recipe.output) / "checkpoints",
                     options_of(recipe, lock, std::move(resumed_from)), world, logger),
      kept_updates_(trainer.updates()),
      guessed_seconds_(guess_seconds(recipe)) {}

void Saves::check_place() {
  agree(world_, [&] {
    if (lock_ != nullptr) lock_->check_ours();
  });
}

void Saves::save(Follows follows) {
  world_.note(Activity::saving, trainer_.steps_done());
  kept_updates_ = trainer_.updates();
  check_place();
  checkpointing_.save(trainer_, before_save_, follows);
}

std::string Saves::go_back(Rollbacks& rollbacks, const StepResult& result) {
  checkpointing_.finish();
  checkpointing_.distrust_last_save();
  check_place();  // what is damaged is set aside
  std::string sentence = rollbacks.go_back(trainer_, checkpointing_.newest_checkpoint(), result);
  kept_updates_ = trainer_.updates();
  return sentence;
}

void Saves::finish() {
  checkpointing_.finish();
  if (!checkpointing_.last_failure()) return;
  const std::string newest = checkpointing_.newest_checkpoint();
  const bool is_numeric = checkpointing_.last_fault() == Fault::numeric;
  throw Error(
      checkpointing_.last_fault(),
      join_text(*checkpointing_.last_failure(), " It was the last save of this run. ",
                newest.empty() ? "There is no checkpoint, so what was learnt is lost."
                               : "What was learnt since the last good checkpoint, " + newest + ", is lost.",
                is_numeric ? " The same command " : " When the cause is mended, the same command ",
                newest.empty() ? "begins anew." : "goes on from there."),
      Reach::all_ranks);
}

double Saves::seconds() const {
  return checkpointing_.last_checkpoint().empty() ? guessed_seconds_ : checkpointing_.last_save_seconds();
}

}  // namespace conclave
