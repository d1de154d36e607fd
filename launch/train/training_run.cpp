#include "launch/train/training_run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <sstream>
#include <thread>
#include <utility>

#include "framework/base/shell_word.h"
#include "framework/base/text.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/validate.h"
#include "launch/train/job.h"
#include "launch/train/resumption.h"
#include "launch/train/stop_signals.h"
#include "optim/schedule.h"
#include "parallel/agreement.h"
#include "parallel/replica_check.h"

namespace conclave {
namespace {

constexpr int stopped_on_request = 75;

using Clock = std::chrono::steady_clock;

}  // namespace

TrainingRun::TrainingRun(const Recipe& recipe, const std::shared_ptr<Communicator>& world)
    : recipe_(recipe),
      world_(*world),
      logger_({.rank = world->rank()}),
      device_(choose_device(*world, recipe.training.device)),
      threads_(choose_threads(*world, recipe.training.threads)),
      mesh_(world, {.tensor = recipe.parallel.tensor,
                    .expert = recipe.parallel.expert,
                    .expert_tensor = recipe.parallel.expert_tensor}),
      dead_experts_(recipe),
      time_limit_(recipe.training.time_limit, logger_),
      rollbacks_(*world, recipe.training) {}

int TrainingRun::run() try {
  prepare();
  describe();
  // The evaluation of the step that a checkpoint was saved for comes after the save, and may be missing.
  bool stopped = evaluation_is_missing_ && !validate(trainer_->steps_done() >= recipe_.training.steps);
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
    if (rollbacks_.are_due()) roll_back(result);
    if (every(recipe_.training.replica_check_interval, result.step)) compare_ranks(result);
    // While steps are being skipped, a good checkpoint is not replaced by one that may carry the reason.
    const bool saved = last || stopped ||
                       (every(recipe_.checkpoint.interval, result.step) && !result.skipped &&
                        rollbacks_.skipped_in_row() == 0);
    if (saved) save();
    if (stopped || !is_evaluated(result.step) || validate(last)) continue;
    stopped = true;
    if (!saved) save();
  }
  finish_saving();
  logger_.finish_line();
  if (profile_) profile_->write(recipe_.output);
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
  // The terminal hears of it from run_job; the log of the run should know too.
  if (world_.rank() == 0 || error.reach() == Reach::this_rank) logger_.write_to_file(error.what());
  throw;
}

void TrainingRun::prepare() {
  agree(world_, [&] {
    training_ = std::make_unique<TrainingData>(
        recipe_.data, recipe_.model.vocab_size, recipe_.training.seed,
        [this](std::int64_t step) { return batch_size_at(recipe_.training, step); });
    if (!recipe_.data.validation.empty())
      validation_ = std::make_unique<ValidationData>(recipe_.data, recipe_.model.vocab_size);
    trainer_ = std::make_unique<Trainer>(
        recipe_, mesh_,
        [this](std::int64_t step, std::int64_t first, std::int64_t count) {
          Batch batch = training_->batch(step, first, count);
          note_samples(batch, first);
          return batch;
        },
        device_);
    trainer_->add_attributes(data_attributes(recipe_, *training_));
  });
  agree(world_, [&] {
    if (world_.rank() != 0) return;
    lock_ = std::make_unique<DirectoryLock>(recipe_.output);
    clear_journals(RunGuard::journals_of(recipe_));
  });
  agree(world_, [&] { guard_ = std::make_unique<RunGuard>(world_, recipe_); });
  ResumePoint resume = find_resume_point(recipe_, world_);
  if (resume.checkpoint) load_finite(world_, *trainer_, *resume.checkpoint, resume.rejected);
  const std::string checkpoint = resume.checkpoint ? resume.checkpoint->string() : std::string();
  agree(world_, [&] {
    if (checkpoint.empty()) return;
    const CheckpointReader reader(checkpoint, Verify::nothing);
    changes_ = resume_data(reader, recipe_, *training_);
    resumed_recipe_ = reader.text("recipe");
  });
  resumed_from_ = checkpoint;
  const FoundCheckpoint other = checkpoint.empty() ? take_from_another_run() : FoundCheckpoint{};
  agree(world_, [&] {
    if (world_.rank() != 0) return;
    std::vector<std::string> domains;
    for (std::int64_t i = 0; validation_ && i < validation_->datasets(); ++i)
      domains.push_back(validation_->domain_name(i));
    std::optional<std::int64_t> resumed;
    if (resume.checkpoint) resumed = trainer_->steps_done();
    directory_ =
        std::make_unique<RunDirectory>(recipe_, resumed, resumed_recipe_, domains,
                                       [this](const std::string& sentence) { logger_.warning(sentence); });
    evaluation_is_missing_ = resumed && is_evaluated(*resumed) && directory_->lacks_evaluation();
  });
  evaluation_is_missing_ = is_true_on_any(world_, evaluation_is_missing_);
  agree(world_, [&] { logger_.open_file(recipe_.output + "/log.txt"); });
  if (world_.rank() == 0)
    for (const auto& rejected : {resume.rejected, other.rejected})
      for (const std::string& sentence : rejected) logger_.warning(sentence);
  for (const std::string& sentence : warnings(recipe_))
    if (world_.rank() == 0) logger_.warning(sentence);
  if (directory_)
    for (const std::string& sentence : directory_->notes()) logger_.info(sentence);
  checkpointing_ =
      std::make_unique<Checkpointing>(std::filesystem::path(recipe_.output) / "checkpoints",
                                      CheckpointingOptions{.keep = recipe_.checkpoint.keep,
                                                           .asynchronous = recipe_.checkpoint.asynchronous,
                                                           .check_place = [this] { lock_->check_ours(); }},
                                      world_, logger_);
  if (!checkpoint.empty()) logger_.info("Resuming after step ", trainer_->steps_done(), " from ", checkpoint);
  if (other.path)
    logger_.info("Starting with the ", join_words(recipe_.checkpoint.take), " of ", other.path->string());
  for (const std::string& sentence : changes_) logger_.info(sentence);
  if (const DType dtype = dtype_of_precision(recipe_.training.precision); dtype != DType::float64) {
    const Tensor rate = Tensor::from(std::vector<double>{quick_matrix_rate(device_, dtype)}, {1});
    world_.all_reduce(rate, ReduceOp::sum, Purpose::statistics);
    matrix_rate_ = rate.item();
  }
  if (recipe_.logging.profile)
    profile_ = std::make_unique<StepProfile>(
        world_, device_.kind() == DeviceKind::cpu
                    ? MachineRates{quick_matrix_rate(device_, dtype_of_precision(recipe_.training.precision)),
                                   quick_memory_rate()}
                    : MachineRates{});
}

FoundCheckpoint TrainingRun::take_from_another_run() {
  if (recipe_.checkpoint.initialize_from.empty()) return {};
  const FoundCheckpoint found = find_checkpoint(world_, recipe_.checkpoint.initialize_from);
  agree(world_, [&] {
    const CheckpointReader reader(*found.path, Verify::nothing);
    trainer_->take(reader, recipe_.checkpoint.take);
    changes_ = take_data(reader, recipe_, *training_);
  });
  return found;
}

void TrainingRun::describe() {
  // Before anything has been saved: values and two moments at 200 MB/s.
  first_save_seconds_ =
      0.2 + 3 * count_parameters(recipe_.model).total() *
                static_cast<double>(element_bytes(sum_type(dtype_of_precision(recipe_.training.precision)))) /
                200e6;
  const ParameterCount all = count_parameters(recipe_.model), active = count_active_parameters(recipe_.model);
  logger_.info(recipe_.name, ": ", fixed(static_cast<double>(all.total()) / 1e6, 2), " M parameters, ",
               fixed(static_cast<double>(active.total()) / 1e6, 2), " M active per token; ",
               counted(recipe_.model.moe.num_experts, "expert"), ", ", recipe_.model.moe.num_experts_per_tok,
               " per token");
  logger_.info(counted(world_.size(), "rank"), " with ", counted(threads_, "thread"), " each",
               device_.kind() == DeviceKind::cpu ? "" : join_text(" on ", device_.name()),
               "; global batch of ", counted(recipe_.training.global_batch_size, "sequence"), " of ",
               counted(recipe_.data.sequence_length, "token"), ", micro-batches of ",
               recipe_.training.micro_batch_size);
  const auto degree = [&](Axis axis) { return mesh_.layout().degree(axis); };
  if (degree(Axis::tensor) * degree(Axis::expert_group) > 1)
    logger_.info("Attention on ", degree(Axis::tensor), " tensor x ", degree(Axis::data),
                 " data ranks, experts on ", degree(Axis::expert_tensor), " expert_tensor x ",
                 degree(Axis::expert), " expert x ", degree(Axis::expert_data), " expert_data ranks");
  std::string domains;
  for (const Dataset& dataset : training_->datasets())
    domains += join_text(domains.empty() ? "" : ", ", dataset.domain(), " ",
                         dataset.tokens() < 1'000'000
                             ? join_text((dataset.tokens() + 500) / 1000, " k")
                             : fixed(static_cast<double>(dataset.tokens()) / 1e6, 1) + " M");
  logger_.info("Training text in tokens: ", domains);
  if (world_.rank() == 0) {
    logger_.info("Passes over it by step ", recipe_.training.steps, ": ", planned_passes_text(passes()));
    for (const std::string& sentence : training_->unopened_texts()) logger_.warning(sentence);
  }
  if (trainer_->steps_done() >= recipe_.training.steps)
    logger_.info("This run is complete: ",
                 recipe_.training.steps == 1 ? "its only step is"
                                             : join_text("all ", recipe_.training.steps, " steps are"),
                 " done. Raise training.steps to go on, or choose another output.");
  else
    logger_.info("Ready after ", fixed(logger_.elapsed_seconds(), 2), " s; writing to ", recipe_.output);
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
  const double rate = static_cast<double>(result.tokens) / seconds;
  if (directory_ && every(recipe_.logging.interval, result.step)) {
    lock_->check_ours();  // what is kept of experts may be written by name
    directory_->write_step(result, seconds, flops, world_.traffic().since(before));
  }
  if (recipe_.logging.samples) write_samples(result);
  if (directory_ && !result.skipped && !result.no_targets)
    for (const std::string& sentence : dead_experts_.add(result.balance.counts)) logger_.warning(sentence);
  progress.update({.step = result.step,
                   .loss = result.lm_loss,
                   .tokens_per_second = rate,
                   .matrix_rate_fraction = matrix_rate_ > 0 ? rate * flops / matrix_rate_ : std::nan(""),
                   .load_imbalance = result.balance.max_load_violation,
                   .step_seconds = seconds});
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
    logger_.warning("Step ", result.step, " is skipped: the loss is ", result.loss, " and the gradient norm ",
                    result.gradient_norm, "; ", result.not_finite, ". (", rollbacks_.skipped_in_row(),
                    " in a row, ", rollbacks_.skipped(), " in all)");
  else if (!spike.empty())
    logger_.warning("Step ", result.step, " is a spike: ", spike, "; log.txt names its data.");
  else
    return;
  write_data_of(result);
}

void TrainingRun::note_missing_targets(const StepResult& result) {
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
  const std::string sentence = rollbacks_.go_back(*trainer_, newest_checkpoint(), result);
  unsaved_ = false;
  if (world_.rank() == 0) logger_.warning(sentence);
}

void TrainingRun::end_with_skipped_steps(const StepResult& result) {
  if (unsaved_) {
    rollbacks_.return_to_last_update(*trainer_);
    save();
  }
  checkpointing_->finish();
  const std::string newest = newest_checkpoint();
  throw Error(Fault::numeric,
              join_text(rollbacks_.describe_end(result), " ",
                        checkpointing_->last_failure() ? *checkpointing_->last_failure() + " " : "",
                        newest.empty() ? "There is no checkpoint"
                                       : "The newest checkpoint, from before these steps, is " + newest,
                        ". A lower optimizer.lr or more warm-up may help; log.txt names the layer and the "
                        "data. The same command tries the skipped steps again."),
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
  if (directory_) directory_->write_evaluation(trainer_->steps_done(), results);
  if (last) final_loss_ = mean_over_domains(results);
  evaluation_seconds_ = seconds_since(begin);
  return true;
}

void TrainingRun::save() {
  world_.note(Activity::saving, trainer_->steps_done());
  unsaved_ = false;
  agree(world_, [&] {
    if (lock_) lock_->check_ours();
  });
  checkpointing_->save(*trainer_, [this] {
    directory_->flush();
    write_passes(recipe_.output, passes(), trainer_->steps_done(), recipe_.training.steps);
  });
}

std::string TrainingRun::newest_checkpoint() const {
  return checkpointing_->last_checkpoint().empty() ? resumed_from_
                                                   : checkpointing_->last_checkpoint().string();
}

double TrainingRun::save_seconds() const {
  return checkpointing_->last_checkpoint().empty() ? first_save_seconds_
                                                   : checkpointing_->last_save_seconds();
}

void TrainingRun::finish_saving() {
  checkpointing_->finish();
  if (const std::optional<std::string>& failure = checkpointing_->last_failure())
    throw Error(checkpointing_->last_fault(),
                join_text(*failure,
                          " It was the last one of this run; the state since the checkpoint before is "
                          "lost. ",
                          checkpointing_->last_fault() == Fault::numeric
                              ? "The same command goes on from there."
                              : "Make room and run the same command again."),
                Reach::all_ranks);
}

void TrainingRun::close() {
  agree(world_, [&] {
    if (!directory_) return;
    lock_->check_ours();
    directory_->flush();
  });
  if (checkpointing_->last_checkpoint().empty()) return;
  logger_.info("Passes over the training text: ", passes_so_far_text(passes()));
  logger_.info("Done: ", counted(trainer_->steps_done(), "step"), ", ",
               fixed(static_cast<double>(trainer_->tokens_done()) / 1e6, 2), " M tokens",
               std::isnan(final_loss_) ? "" : ", mean validation loss " + fixed(final_loss_, 4) + " nats",
               ". Try: conclave generate ", shell_word(recipe_.output), " --prompt \"The \"");
}

}  // namespace conclave
