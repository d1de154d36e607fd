#include "launch/training_run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <sstream>
#include <utility>

#include "framework/base/text.h"
#include "framework/recipe/duration.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/validate.h"
#include "launch/job.h"
#include "launch/stop_signals.h"
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
                    .expert_tensor = recipe.parallel.expert_tensor}) {}

int TrainingRun::run() try {
  prepare();
  describe();
  bool stopped = false;
  Progress progress(logger_, recipe_.training.steps);
  while (trainer_->steps_done() < recipe_.training.steps && !stopped) {
    stop_before_the_time_limit();
    const StepResult result = timed_step(progress);
    const bool last = result.step == recipe_.training.steps;
    stopped = result.stop && !last;
    note_numbers(result);
    if (skipped_in_row_ >= recipe_.training.skip_limit) roll_back(result);
    if (every(recipe_.training.replica_check_interval, result.step)) compare_ranks(result);
    if (validation_ && (last || every(recipe_.evaluation.interval, result.step))) validate(last);
    // While steps are being skipped, a good checkpoint is not replaced by one that may carry the reason.
    if (last || stopped || (every(recipe_.checkpoint.interval, result.step) && !result.skipped)) save();
  }
  finish_saving();
  logger_.finish_line();
  if (profile_) profile_->write(recipe_.output);
  if (stopped) {
    logger_.info(time_is_up_on_any_rank() ? "Stopped before training.time_limit" : "Stopped on request",
                 " after step ", trainer_->steps_done(), ", saved; run the same command again to go on.");
    return stopped_on_request;
  }
  close();
  return 0;
} catch (const Error& error) {
  // What is being saved was good when it was copied.
  if ((error.reach() == Reach::all_ranks || world_.size() == 1) && checkpointing_) checkpointing_->finish();
  // The terminal hears of it from run_job; the log of the run should know too.
  if (world_.rank() == 0 || error.reach() == Reach::this_rank) logger_.write_to_file(error.what());
  throw;
}

void TrainingRun::prepare() {
  agree(world_, [&] {
    training_ = std::make_unique<TrainingData>(recipe_.data, recipe_.model.vocab_size, recipe_.training.seed,
                                               [this](std::int64_t step) { return size_of_data_step(step); });
    if (!recipe_.data.validation.empty())
      validation_ = std::make_unique<ValidationData>(recipe_.data, recipe_.model.vocab_size);
    trainer_ = std::make_unique<Trainer>(
        recipe_, mesh_,
        [this](std::int64_t step, std::int64_t first, std::int64_t count) {
          Batch batch = training_->batch(step + skipped_data_steps(), first, count);
          note_samples(batch, first);
          return batch;
        },
        device_);
  });
  agree(world_, [&] {
    if (world_.rank() != 0) return;
    lock_ = std::make_unique<DirectoryLock>(recipe_.output);
    clear_journals(RunGuard::journals_of(recipe_));
  });
  agree(world_, [&] { guard_ = std::make_unique<RunGuard>(world_, recipe_); });
  const ResumePoint resume = find_resume_point(recipe_, world_);
  const std::string checkpoint = resume.checkpoint ? resume.checkpoint->string() : std::string();
  agree(world_, [&] {
    if (!checkpoint.empty()) trainer_->load(CheckpointReader(checkpoint, Verify::nothing));
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
    directory_ = std::make_unique<RunDirectory>(recipe_, resumed, domains);
  });
  agree(world_, [&] { logger_.open_file(recipe_.output + "/log.txt"); });
  if (world_.rank() == 0)
    for (const auto& rejected : {resume.rejected, other.rejected})
      for (const std::string& sentence : rejected) logger_.warning(sentence);
  for (const std::string& sentence : warnings(recipe_))
    if (world_.rank() == 0) logger_.warning(sentence);
  checkpointing_ = std::make_unique<Checkpointing>(
      std::filesystem::path(recipe_.output) / "checkpoints",
      CheckpointingOptions{.keep = recipe_.checkpoint.keep, .asynchronous = recipe_.checkpoint.asynchronous},
      world_, logger_);
  if (!checkpoint.empty()) logger_.info("Resuming after step ", trainer_->steps_done(), " from ", checkpoint);
  if (other.path)
    logger_.info("Starting with the ", join_words(recipe_.checkpoint.take), " of ", other.path->string());
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
  agree(world_,
        [&] { trainer_->take(CheckpointReader(*found.path, Verify::nothing), recipe_.checkpoint.take); });
  return found;
}

std::int64_t TrainingRun::size_of_data_step(std::int64_t step) const {
  const std::int64_t own = step - skipped_data_steps();
  return own < 0 ? trainer_->sequences_skipped() : batch_size_at(recipe_.training, own);
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
               recipe_.model.moe.num_experts, " experts, ", recipe_.model.moe.num_experts_per_tok,
               " per token");
  logger_.info(world_.size(), world_.size() == 1 ? " rank" : " ranks", " with ", threads_,
               threads_ == 1 ? " thread" : " threads", " each",
               device_.kind() == DeviceKind::cpu ? "" : join_text(" on ", device_.name()),
               "; global batch of ", recipe_.training.global_batch_size, " sequences of ",
               recipe_.data.sequence_length, " tokens, micro-batches of ", recipe_.training.micro_batch_size);
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
    logger_.info("This run is complete: all ", recipe_.training.steps,
                 " steps are done. Raise training.steps to go on, or choose another output.");
  else
    logger_.info("Ready after ", fixed(logger_.elapsed_seconds(), 2), " s; writing to ", recipe_.output);
}

std::vector<DatasetPasses> TrainingRun::passes() {
  const std::int64_t done = trainer_->steps_done();
  return passes_of(*training_, done + skipped_data_steps(),
                   std::max(done, recipe_.training.steps) + skipped_data_steps());
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
  if (directory_ && every(recipe_.logging.interval, result.step))
    directory_->write_step(result, seconds, flops, world_.traffic().since(before));
  if (recipe_.logging.samples) write_samples(result);
  if (!result.skipped && !result.no_targets) name_dead_experts(result);
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

void TrainingRun::name_dead_experts(const StepResult& result) {
  const std::int64_t limit = recipe_.logging.dead_expert_steps, experts = recipe_.model.moe.num_experts;
  if (limit == 0 || world_.rank() != 0) return;
  idle_steps_.resize(result.balance.counts.size());
  for (std::size_t i = 0; i < idle_steps_.size(); ++i) {
    idle_steps_[i] = result.balance.counts[i] > 0 ? 0 : idle_steps_[i] + 1;
    if (idle_steps_[i] == limit)
      logger_.warning("Expert ", static_cast<std::int64_t>(i) % experts, " of block ",
                      recipe_.model.moe.first_k_dense_replace + static_cast<std::int64_t>(i) / experts,
                      " has had no token for ", limit, " steps.");
  }
}

void TrainingRun::stop_before_the_time_limit() {
  const double limit = *seconds_of_duration(recipe_.training.time_limit);
  if (limit == 0 || time_is_up_) return;
  double needed = 2 * longest_step_ + 2 * save_seconds() + std::min(10.0, 0.02 * limit);
  if (every(recipe_.evaluation.interval, trainer_->steps_done() + 1)) needed += 1.5 * evaluation_seconds_;
  if (logger_.elapsed_seconds() + needed < limit) return;
  time_is_up_ = true;
  request_stop();
}

bool TrainingRun::time_is_up_on_any_rank() {
  const Tensor up = Tensor::from(std::vector<std::int64_t>{time_is_up_ ? 1 : 0}, {1});
  world_.all_reduce(up, ReduceOp::maximum, Purpose::agreement);
  return up.item() > 0;
}

void TrainingRun::note_numbers(const StepResult& result) {
  if (result.no_targets) return note_missing_targets(result);
  skipped_in_row_ = result.skipped ? skipped_in_row_ + 1 : 0;
  skipped_ += result.skipped ? 1 : 0;
  if (world_.rank() != 0) return;
  const std::string spike = result.skipped ? "" : spikes_.add(result.lm_loss);
  if (result.skipped)
    logger_.warning("Step ", result.step, " is skipped: the loss is ", result.loss, " and the gradient norm ",
                    result.gradient_norm, "; ", result.not_finite, ". (", skipped_in_row_, " in a row, ",
                    skipped_, " in all)");
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
  for (const std::string& line : training_->describe(result.step - 1 + skipped_data_steps()))
    logger_.write_to_file(join_text("Data of step ", result.step, ": ", line));
}

void TrainingRun::roll_back(const StepResult& result) {
  checkpointing_->finish();
  const std::string checkpoint =
      checkpointing_->last_checkpoint().empty() ? resumed_from_ : checkpointing_->last_checkpoint().string();
  const auto give_up = [&](const auto&... reasons) {
    throw Error(Fault::numeric,
                join_text("step ", result.step, ": the loss is ", result.loss, " and the gradient norm ",
                          result.gradient_norm, " after ", skipped_in_row_, " skipped ",
                          skipped_in_row_ == 1 ? "step" : "steps", " in a row, and ", reasons...,
                          "; training cannot go on from here. A lower optimizer.lr or more warm-up may help; "
                          "log.txt names the layer and the data."),
                Reach::all_ranks);
  };
  if (rollbacks_ == recipe_.training.rollback_limit)
    give_up("the run has gone back ", rollbacks_, " times already (training.rollback_limit)");
  if (checkpoint.empty()) give_up("there is no checkpoint to go back to");
  ++rollbacks_;
  skipped_in_row_ = 0;
  const std::int64_t tokens = trainer_->tokens_done(), sequences = trainer_->sequences_done();
  agree(world_, [&] { trainer_->load(CheckpointReader(checkpoint)); });
  if (world_.rank() == 0)
    logger_.warning("Going back to the parameters of step ", trainer_->steps_done(), " (", checkpoint,
                    ") and on with the data after step ", result.step, "; time ", rollbacks_, " of ",
                    recipe_.training.rollback_limit, ".");
  trainer_->go_on_after(result.step, tokens, sequences);
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

void TrainingRun::validate(bool last) {
  const auto begin = Clock::now();
  world_.note(Activity::evaluating, trainer_->steps_done());
  const std::vector<DomainResult> results =
      evaluate(trainer_->model().transformer, *validation_,
               {.most_sequences = recipe_.evaluation.batches * recipe_.training.global_batch_size,
                .micro_batch_size = recipe_.training.micro_batch_size,
                .experts = recipe_.model.moe.num_experts},
               mesh_);
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
}

void TrainingRun::save() {
  world_.note(Activity::saving, trainer_->steps_done());
  checkpointing_->save(*trainer_, [this] {
    directory_->flush();
    write_passes(recipe_.output, passes(), trainer_->steps_done(), recipe_.training.steps);
  });
}

double TrainingRun::save_seconds() const {
  return checkpointing_->last_checkpoint().empty() ? first_save_seconds_
                                                   : checkpointing_->last_save_seconds();
}

void TrainingRun::finish_saving() {
  checkpointing_->finish();
  if (const std::optional<std::string>& failure = checkpointing_->last_failure())
    throw Error(Fault::machine,
                join_text(*failure,
                          " It was the last one of this run; the state since the checkpoint before is "
                          "lost. Make room and run the same command again."),
                Reach::all_ranks);
}

void TrainingRun::close() {
  agree(world_, [&] {
    if (directory_) directory_->flush();
  });
  if (checkpointing_->last_checkpoint().empty()) return;
  logger_.info("Passes over the training text: ", passes_so_far_text(passes()));
  logger_.info("Done: ", trainer_->steps_done(), " steps, ",
               fixed(static_cast<double>(trainer_->tokens_done()) / 1e6, 2), " M tokens",
               std::isnan(final_loss_) ? "" : ", mean validation loss " + fixed(final_loss_, 4) + " nats",
               ". Try: conclave generate ", recipe_.output, " --prompt \"The \"");
}

}  // namespace conclave
