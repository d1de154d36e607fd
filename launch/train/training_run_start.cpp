// How a training run begins: data, model and directory, where it goes on, and what is said of it.
#include "framework/base/text.h"
#include "framework/data/batch_ramp.h"
#include "framework/recipe/nearest.h"
#include "launch/train/job.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/resumption.h"
#include "launch/train/training_run.h"
#include "parallel/agreement.h"

namespace conclave {

TrainingRun::TrainingRun(const Recipe& recipe, const std::shared_ptr<Communicator>& world)
    : recipe_(recipe),
      world_(*world),
      logger_({.rank = world->rank()}),
      device_(choose_device(*world, recipe.training.device)),
      threads_(choose_threads(*world, recipe.training.threads)),
      mesh_(world, degrees_of(recipe.parallel)),
      dead_experts_(recipe),
      time_limit_(recipe.training.time_limit, logger_),
      rollbacks_(*world, recipe.training) {}

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
  const FoundCheckpoint other = checkpoint.empty() ? take_from_another_run() : FoundCheckpoint{};
  if (checkpoint.empty()) first_updates_ = trainer_->updates();
  agree(world_, [&] {
    if (world_.rank() != 0) return;
    const std::vector<std::string> domains =
        validation_ ? validation_->domains() : std::vector<std::string>{};
    std::optional<std::int64_t> resumed;
    if (resume.checkpoint) resumed = trainer_->steps_done();
    directory_ =
        std::make_unique<RunDirectory>(*lock_, recipe_, resumed, resumed_recipe_, domains,
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
                                                           .check_place = [this] { lock_->check_ours(); },
                                                           .resumed_from = checkpoint},
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
    logger_.info("This run is complete: it has done ", counted(trainer_->steps_done(), "step"),
                 ", and training.steps is ", recipe_.training.steps, ". Raise training.steps above ",
                 trainer_->steps_done(), " to go on, or choose another output.");
  else
    logger_.info("Ready after ", fixed(logger_.elapsed_seconds(), 2), " s; writing to ", recipe_.output);
}

}  // namespace conclave
