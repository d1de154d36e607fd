#include "launch/train/run/training_run.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "framework/base/shell_word.h"
#include "framework/base/text.h"
#include "launch/train/stop_signals.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

constexpr int stopped_on_request = 75;

}  // namespace

int TrainingRun::run() try {
  prepare();
  describe();
  for (const auto& observer : observers_)
    if (!stopped_) stopped_ = observer->begin() == Wish::stop;
  while (trainer_->steps_done() < recipe_.training.steps && !stopped_) take_step();
  saves_->finish();
  logger_.finish_line();
  for (const auto& observer : observers_) observer->end();
  if (stopped_) {
    logger_.info(is_true_on_any(world_, time_limit_.is_up()) ? "Stopped before training.time_limit"
                                                             : "Stopped on request",
                 " after step ", trainer_->steps_done(), ", saved; run the same command again to go on.");
    return stopped_on_request;
  }
  close();
  return 0;
} catch (const Error& error) {
  // A state that is being saved was good when it was copied.
  if ((error.reach() == Reach::all_ranks || world_.size() == 1) && saves_) saves_->checkpointing().finish();
  // Destroyed, it would write what still waits by name, which is another run's now.
  if (lock_ && !lock_->is_ours()) static_cast<void>(directory_.release());
  // Ranks that fail alike at the same time have one sentence; who has it ends the others meanwhile.
  const bool is_alone = error.reach() == Reach::this_rank && world_.size() > 1 && guard_;
  if (is_alone && !guard_->claims_last_word()) std::this_thread::sleep_for(std::chrono::seconds(5));
  // The terminal hears of it from run_job; the log of the run should know too, also before it was opened.
  if (lock_ && lock_->is_ours() && !logger_.has_file()) append_to_earlier_log();
  if (world_.rank() == 0 || error.reach() == Reach::this_rank) logger_.write_to_file(error.what());
  throw;
}

std::vector<DatasetPasses> TrainingRun::passes() {
  const std::int64_t done = trainer_->steps_done();
  return passes_of(*training_, done, std::max(done, recipe_.training.steps));
}

void TrainingRun::take_step() {
  const std::int64_t next = trainer_->steps_done() + 1;
  // Room for the step, for a save that is slower than the last one, and for what observers do after the step.
  double needed = 2 * longest_step_ + 2 * saves_->seconds();
  for (const auto& observer : observers_) needed += observer->seconds_after(next);
  time_limit_.stop_before(needed);
  for (const auto& observer : observers_) observer->before_step();
  const TrafficTable before = world_.traffic();
  const auto begin = std::chrono::steady_clock::now();
  const StepResult result = trainer_->step(saves_->checkpointing().votes(), stop_was_requested);
  const double seconds = seconds_since(begin);
  longest_step_ = std::max(seconds, 0.9 * longest_step_);
  const bool is_last = result.step == recipe_.training.steps;
  stopped_ = result.stop && !is_last;
  is_saved_ = false;
  const FinishedStep step{.result = result,
                          .seconds = seconds,
                          .traffic = world_.traffic().since(before),
                          .is_last = is_last,
                          .ends_early = stopped_};
  for (const auto& observer : observers_) fulfil(observer->after_step(step), step);
}

void TrainingRun::fulfil(Wish wish, const FinishedStep& step) {
  if (wish == Wish::go_back) {
    const std::string sentence = saves_->go_back(rollbacks_, step.result);
    if (world_.rank() == 0) logger_.warning(sentence);
  }
  if (wish == Wish::stop) stopped_ = true;
  if (wish == Wish::save || (wish == Wish::stop && !is_saved_)) {
    saves_->save(step.is_last || stopped_ ? Follows::nothing : Follows::training);
    is_saved_ = true;
  }
}

void TrainingRun::append_to_earlier_log() {
  const std::filesystem::path log = std::filesystem::path(recipe_.output) / "log.txt";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(std::filesystem::symlink_status(log, ignored))) return;
  static_cast<void>(failure_of([&] { logger_.open_file(log.string()); }));
}

void TrainingRun::close() {
  agree(world_, [&] {
    if (directory_) directory_->flush();
  });
  if (saves_->checkpointing().last_checkpoint().empty()) return;
  logger_.info("Passes over the training text: ", passes_so_far_text(passes()));
  std::string summary;
  for (const auto& observer : observers_)
    if (const std::string part = observer->summary(); !part.empty()) summary += ", " + part;
  logger_.info("Done: ", counted(trainer_->steps_done(), "step"), ", ",
               fixed(static_cast<double>(trainer_->tokens_done()) / 1e6, 2), " M tokens", summary,
               ". Try: conclave generate ", shell_word(recipe_.output), " --prompt \"The \"");
}

}  // namespace conclave
