#include "launch/train/training_run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <sstream>
#include <thread>
#include <utility>

#include "framework/base/shell_word.h"
#include "framework/base/text.h"
#include "launch/train/model_size.h"
#include "launch/train/stop_signals.h"
#include "parallel/agreement.h"
#include "parallel/replica_check.h"

namespace conclave {
namespace {

constexpr int stopped_on_request = 75;

using Clock = std::chrono::steady_clock;

}  // namespace

int TrainingRun::run() try {
  prepare();
  describe();
  // The evaluation of the step that a checkpoint was saved for comes after the save, and may be missing.
  bool stopped = evaluation_is_missing_ && !validate(trainer_->steps_done() >= recipe_.training.steps);
  if (stopped) refuse_a_limit_without_steps();
  Progress progress(logger_, recipe_.training.steps);
  while (trainer_->steps_done() < recipe_.training.steps && !stopped) {
    // Room for the step, for a save that is slower than the last one, and for an evaluation to come to its
    // end.
    time_limit_.stop_before(2 * longest_step_ + 2 * save_seconds() +
                            (is_evaluated(trainer_->steps_done() + 1) ? 1.5 * evaluation_seconds_ : 0));
    const StepResult result = timed_step(progress);
    const bool last = result.step == recipe_.training.steps;
    stopped = result.stop && !last;
    note_numbers(result);
    if (last && rollbacks_.skipped_in_row() > 0) end_with_skipped_steps(result);
    if (last && trainer_->updates() == first_updates_) end_without_an_update();
    if (rollbacks_.are_due()) roll_back(result);
    if (every(recipe_.training.replica_check_interval, result.step)) compare_ranks(result);
    // While steps are being skipped, a good checkpoint is not replaced by one that may carry the reason.
    const bool saved = last || stopped ||
                       (every(recipe_.checkpoint.interval, result.step) && !result.skipped &&
                        rollbacks_.skipped_in_row() == 0);
    if (saved) save(last || stopped ? Follows::nothing : Follows::training);
    if (stopped || !is_evaluated(result.step) || validate(last)) continue;
    stopped = true;
    if (!saved) save(Follows::nothing);
  }
  finish_saving();
  logger_.finish_line();
  if (profile_)
    profile_->tell([this](const std::string& table, const std::string& trace) {
      directory_->write_profile(table, trace);
    });
  if (stopped) {
    logger_.info(is_true_on_any(world_, time_limit_.is_up()) ? "Stopped before training.time_limit"
                                                             : "Stopped on request",
                 " after step ", trainer_->steps_done(), ", saved; run the same command again to go on.");
    return stopped_on_request;
  }
  close();
  return 0;
} catch (const Error& error) {
  // What is being saved was good when it was copied.
  if ((error.reach() == Reach::all_ranks || world_.size() == 1) && checkpointing_) checkpointing_->finish();
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

StepResult TrainingRun::timed_step(Progress& progress) {
  const TrafficTable before = world_.traffic();
  const auto begin = Clock::now();
  const StepResult result = [&] {
    const auto recording = profile_ ? profile_->record() : nullptr;
    return trainer_->step(checkpointing_->votes());
  }();
  const double seconds = seconds_since(begin);
  if (profile_) profile_->end_step(seconds);
  longest_step_ = std::max(seconds, 0.9 * longest_step_);
  const double flops = training_flops_per_token(recipe_.model, recipe_.data.sequence_length);
  const double rate = result.no_targets ? std::nan("") : static_cast<double>(result.tokens) / seconds;
  if (directory_ && every(recipe_.logging.interval, result.step))
    directory_->write_step(result, seconds, flops, world_.traffic().since(before));
  if (recipe_.logging.samples) write_samples(result);
  if (directory_ && !result.skipped && !result.no_targets)
    for (const std::string& sentence : dead_experts_.add(result.balance.counts)) logger_.warning(sentence);
  progress.update({.step = result.step,
                   .loss = result.lm_loss,
                   .tokens_per_second = rate,
                   .matrix_rate_fraction = matrix_rate_ > 0 ? rate * flops / matrix_rate_ : std::nan(""),
                   .load_imbalance = result.balance.max_load_violation,
                   .step_seconds = seconds});
  if (!result.skipped && !result.no_targets) checkpointing_->trust_last_save();
  checkpointing_->after_step(result.votes);
  return result;
}

void TrainingRun::note_samples(const Batch& batch, std::int64_t first) {
  if (!recipe_.logging.samples || mesh_.axis(Axis::tensor).rank() != 0) return;
  for (const DrawnSequence& one : batch.drawn)
    samples_ += join_text(first++, " ", one.dataset, " ", one.draw, " ", one.sequence, "\n");
}

void TrainingRun::write_samples(const StepResult& result) {
  std::vector<std::pair<std::int64_t, DrawnSequence>> placed;
  for (const std::string& text : all_gather_text(world_, std::exchange(samples_, ""))) {
    std::istringstream numbers(text);
    std::int64_t position = 0;
    for (DrawnSequence one; numbers >> position >> one.dataset >> one.draw >> one.sequence;)
      placed.emplace_back(position, one);
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<DrawnSequence> drawn;
  for (const auto& [position, one] : placed) drawn.push_back(one);
  if (directory_) directory_->write_samples(result.step, result.skipped || result.no_targets, drawn);
}

void TrainingRun::note_numbers(const StepResult& result) {
  if (result.no_targets) return note_missing_targets(result);
  rollbacks_.note(result, *trainer_);
  unsaved_ = unsaved_ || !result.skipped;
  if (world_.rank() != 0) return;
  const std::string spike = result.skipped ? "" : spikes_.add(result.lm_loss);
  if (result.skipped)
    logger_.warning("Step ", result.step, " is skipped: the loss is ", measured_text(result.loss),
                    " and the gradient norm ", measured_text(result.gradient_norm), "; ", result.not_finite,
                    ". (", rollbacks_.skipped_in_row(), " in a row, ", rollbacks_.skipped(), " in all)");
  else if (!spike.empty())
    logger_.warning("Step ", result.step, " is a spike: ", spike, "; log.txt names its data.");
  else
    return;
  write_data_of(result);
}

void TrainingRun::note_missing_targets(const StepResult& result) {
  ++left_out_;
  if (world_.rank() != 0) return;
  logger_.warning("Step ", result.step, " is left out: none of the ", result.tokens,
                  " tokens of its global batch has a target; log.txt names its data.");
  write_data_of(result);
}

void TrainingRun::write_data_of(const StepResult& result) {
  for (const std::string& line : training_->describe(result.step - 1))
    logger_.write_to_file(join_text("Data of step ", result.step, ": ", line));
}

void TrainingRun::roll_back(const StepResult& result) {
  checkpointing_->finish();
  checkpointing_->distrust_last_save();
  agree(world_, [&] {
    if (lock_) lock_->check_ours();  // what is damaged is set aside
  });
  const std::string sentence = rollbacks_.go_back(*trainer_, checkpointing_->newest_checkpoint(), result);
  unsaved_ = false;
  if (world_.rank() == 0) logger_.warning(sentence);
}

void TrainingRun::end_with_skipped_steps(const StepResult& result) {
  if (unsaved_) {
    rollbacks_.return_to_last_update(*trainer_);
    save(Follows::nothing);
  }
  checkpointing_->finish();
  const std::string newest = checkpointing_->newest_checkpoint();
  throw Error(Fault::numeric,
              join_text(rollbacks_.describe_end(result), " ",
                        checkpointing_->last_failure() ? *checkpointing_->last_failure() + " " : "",
                        newest.empty() ? "There is no checkpoint"
                                       : "The newest checkpoint, from before these steps, is " + newest,
                        ". A lower optimizer.lr or more warm-up may help; log.txt names the layer and the "
                        "data. The same command tries the skipped steps again."),
              Reach::all_ranks);
}

void TrainingRun::end_without_an_update() {
  throw Error(Fault::numeric,
              join_text("step ", trainer_->steps_done(),
                        " was the last one, and the run has not made one update: none of the ", left_out_,
                        left_out_ == 1 ? " step" : " steps",
                        " since this command began had a target. A target is a token that another one of its "
                        "document predicts; longer documents or data.document_mask=false give some."),
              Reach::all_ranks);
}

void TrainingRun::refuse_a_limit_without_steps() {
  if (!is_true_on_any(world_, time_limit_.is_up())) return;
  throw Error(Fault::request,
              join_text("training.time_limit: ", recipe_.training.time_limit,
                        " came, but the evaluation after step ", trainer_->steps_done(),
                        ", with which this start begins, takes longer than that leaves room for; give more "
                        "time, or make evaluations shorter with evaluation.batches"),
              Reach::all_ranks);
}

void TrainingRun::compare_ranks(const StepResult& result) {
  if (world_.size() == 1) return;
  world_.note(Activity::checking, result.step);
  check_replicas(trainer_->model().parameters, mesh_);
  const std::vector<SlowRank> slow = trainer_->clock().slow_ranks();
  std::set<int> named;
  for (const SlowRank& rank : slow) {
    // Again only after it was as fast as the others in between.
    if (world_.rank() == 0 && !slow_ranks_.contains(rank.rank))
      logger_.warning("After step ", result.step, ": ", rank.sentence);
    named.insert(rank.rank);
  }
  slow_ranks_ = std::move(named);
}

bool TrainingRun::is_evaluated(std::int64_t step) const {
  return validation_ && step > 0 &&
         (step == recipe_.training.steps || every(recipe_.evaluation.interval, step));
}

bool TrainingRun::stops_now() {
  time_limit_.stop_before(2 * save_seconds());
  std::vector<double> sums = checkpointing_->votes();
  sums.push_back(stop_was_requested() ? 1.0 : 0.0);
  const Tensor reduced = Tensor::from(sums, {static_cast<std::int64_t>(sums.size())});
  world_.all_reduce(reduced, ReduceOp::sum, Purpose::agreement);
  sums = reduced.to_host<double>();
  const bool stops = sums.back() > 0;
  sums.pop_back();
  checkpointing_->after_step(sums);
  return stops;
}

bool TrainingRun::validate(bool last) {
  const auto begin = Clock::now();
  world_.note(Activity::evaluating, trainer_->steps_done());
  const std::optional<std::vector<DomainResult>> evaluated =
      evaluate_unless([this] { return stops_now(); }, trainer_->model().transformer, *validation_,
                      {.most_sequences = recipe_.evaluation.batches * recipe_.training.global_batch_size,
                       .micro_batch_size = recipe_.training.micro_batch_size,
                       .experts = recipe_.model.moe.num_experts},
                      mesh_);
  if (!evaluated) {
    logger_.info("Validation after step ", trainer_->steps_done(),
                 " is broken off, as the run is to stop; its next start begins with it.");
    return false;
  }
  const std::vector<DomainResult>& results = *evaluated;
  std::string domains;
  for (const DomainResult& result : results)
    if (result.target_tokens > 0)
      domains += join_text(domains.empty() ? "" : ", ", result.domain, " ", fixed(result.lm_loss, 3));
  if (!domains.empty())
    logger_.info("Validation after step ", trainer_->steps_done(), ": mean ",
                 fixed(mean_over_domains(results), 4), " nats (", domains, ")");
  if (const std::string left_out = domains_without_targets(results); !left_out.empty() && world_.rank() == 0)
    logger_.warning("Validation after step ", trainer_->steps_done(), ": ", left_out);
  if (const std::string wrong = domains_not_finite(results); !wrong.empty() && world_.rank() == 0)
    logger_.warning("Validation after step ", trainer_->steps_done(), ": ", wrong);
  if (directory_) directory_->write_evaluation(trainer_->steps_done(), results);
  if (last) final_loss_ = mean_over_domains(results);
  evaluation_seconds_ = seconds_since(begin);
  if (std::isfinite(mean_over_domains(results))) checkpointing_->trust_last_save();
  return true;
}

void TrainingRun::save(Follows follows) {
  world_.note(Activity::saving, trainer_->steps_done());
  unsaved_ = false;
  agree(world_, [&] {
    if (lock_) lock_->check_ours();
  });
  checkpointing_->save(
      *trainer_,
      [this] { directory_->write_before_save(passes(), trainer_->steps_done(), recipe_.training.steps); },
      follows);
}

double TrainingRun::save_seconds() const {
  return checkpointing_->last_checkpoint().empty() ? first_save_seconds_
                                                   : checkpointing_->last_save_seconds();
}

void TrainingRun::finish_saving() {
  checkpointing_->finish();
  if (!checkpointing_->last_failure()) return;
  const std::string newest = checkpointing_->newest_checkpoint();
  const bool is_numeric = checkpointing_->last_fault() == Fault::numeric;
  throw Error(
      checkpointing_->last_fault(),
      join_text(*checkpointing_->last_failure(), " It was the last save of this run. ",
                newest.empty() ? "There is no checkpoint, so what was learnt is lost."
                               : "What was learnt since the last good checkpoint, " + newest + ", is lost.",
                is_numeric ? " The same command " : " When the cause is mended, the same command ",
                newest.empty() ? "begins anew." : "goes on from there."),
      Reach::all_ranks);
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
  if (checkpointing_->last_checkpoint().empty()) return;
  logger_.info("Passes over the training text: ", passes_so_far_text(passes()));
  logger_.info("Done: ", counted(trainer_->steps_done(), "step"), ", ",
               fixed(static_cast<double>(trainer_->tokens_done()) / 1e6, 2), " M tokens",
               std::isnan(final_loss_) ? "" : ", mean validation loss " + fixed(final_loss_, 4) + " nats",
               ". Try: conclave generate ", shell_word(recipe_.output), " --prompt \"The \"");
}

}  // namespace conclave
