// How a training run begins: data, model and directory, where it goes on, and what is said of it.
#include <algorithm>
#include <utility>

#include "framework/base/text.h"
#include "framework/data/batch_ramp.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "framework/recipe/nearest.h"
#include "launch/train/job.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/resumption.h"
#include "launch/train/run/training_run.h"
#include "layers/moe/methods.h"
#include "parallel/agreement.h"

namespace conclave {

TrainingRun::TrainingRun(const Recipe& recipe, const std::shared_ptr<Communicator>& world, std::string remark)
    : recipe_(recipe),
      remark_(std::move(remark)),
      world_(*world),
      logger_({.rank = world->rank()}),
      device_(choose_device(*world, recipe.training.device)),
      threads_(choose_threads(*world, recipe.training.threads)),
      mesh_(world, degrees_of(recipe.parallel)),
      time_limit_(recipe.training.time_limit, logger_),
      rollbacks_(*world, recipe.training) {}

void TrainingRun::open_data_and_model() {
  training_ = std::make_unique<TrainingData>(
      recipe_.data, recipe_.model.vocab_size, recipe_.training.seed,
      [this](std::int64_t step) { return batch_size_at(recipe_.training, step); });
  if (!recipe_.data.validation.empty())
    validation_ = std::make_unique<ValidationData>(recipe_.data, recipe_.model.vocab_size);
  trainer_ = std::make_unique<Trainer>(
      recipe_, mesh_,
      [this](std::int64_t step, std::int64_t first, std::int64_t count) {
        const Batch batch = training_->batch(step, first, count);
        for (const auto& observer : observers_) observer->take(batch, first);
        return batch;
      },
      device_);
  trainer_->add_attributes(data_attributes(recipe_, *training_));
}

void TrainingRun::prepare() {
  agree(world_, [&] { open_data_and_model(); });
  agree(world_, [&] {
    if (world_.rank() != 0) return;
    lock_ = std::make_unique<DirectoryLock>(recipe_.output);
    clear_journals(RunGuard::journals_of(recipe_));
  });
  agree(world_, [&] { guard_ = std::make_unique<RunGuard>(world_, recipe_); });
  ResumePoint resume = find_resume_point(recipe_, world_);
  if (resume.checkpoint) load_finite(world_, *trainer_, *resume.checkpoint, resume.rejected);
  const std::string checkpoint = resume.checkpoint ? resume.checkpoint->string() : std::string();
  std::vector<std::string> changes;  // what differs from the checkpoint's recipe
  std::string resumed_recipe;
  agree(world_, [&] {
    if (checkpoint.empty()) return;
    const CheckpointReader reader(checkpoint, Verify::nothing);
    changes = resume_data(reader, recipe_, *training_);
    resumed_recipe = reader.text("recipe");
  });
  const FoundCheckpoint other = checkpoint.empty() ? take_from_another_run(changes) : FoundCheckpoint{};
  learn_from_text();
  agree(world_, [&] {
    if (world_.rank() != 0) return;
    const std::vector<std::string> domains =
        validation_ ? validation_->domains() : std::vector<std::string>{};
    std::optional<std::int64_t> resumed;
    if (resume.checkpoint) resumed = trainer_->steps_done();
    directory_ =
        std::make_unique<RunDirectory>(*lock_, recipe_, resumed, resumed_recipe, domains,
                                       [this](const std::string& sentence) { logger_.warning(sentence); });
  });
  agree(world_, [&] { logger_.open_file(recipe_.output + "/log.txt"); });
  if (world_.rank() == 0)
    for (const auto& rejected : {resume.rejected, other.rejected})
      for (const std::string& sentence : rejected) logger_.warning(sentence);
  for (const std::string& sentence : warnings(recipe_))
    if (world_.rank() == 0) logger_.warning(sentence);
  if (directory_)
    for (const std::string& sentence : directory_->notes()) logger_.info(sentence);
  saves_ = std::make_unique<Saves>(
      recipe_, *trainer_, lock_.get(), checkpoint,
      [this] { directory_->write_before_save(passes(), trainer_->steps_done(), recipe_.training.steps); },
      world_, logger_);
  if (!checkpoint.empty()) logger_.info("Resuming after step ", trainer_->steps_done(), " from ", checkpoint);
  if (other.path)
    logger_.info("Starting with the ", join_words(recipe_.checkpoint.take), " of ", other.path->string());
  for (const std::string& sentence : changes) logger_.info(sentence);
  observers_ = observers_of({.recipe = recipe_,
                             .world = world_,
                             .mesh = mesh_,
                             .device = device_,
                             .logger = logger_,
                             .training = *training_,
                             .validation = validation_.get(),
                             .trainer = *trainer_,
                             .directory = directory_.get(),
                             .saves = *saves_,
                             .rollbacks = rollbacks_,
                             .time_limit = time_limit_,
                             .first_updates = checkpoint.empty() ? trainer_->updates() : 0});
}

FoundCheckpoint TrainingRun::take_from_another_run(std::vector<std::string>& changes) {
  if (recipe_.checkpoint.initialize_from.empty()) return {};
  const FoundCheckpoint found = find_checkpoint(world_, recipe_.checkpoint.initialize_from);
  agree(world_, [&] {
    const CheckpointReader reader(*found.path, Verify::nothing);
    trainer_->take(reader, recipe_.checkpoint.take);
    changes = take_data(reader, recipe_, *training_);
  });
  return found;
}

void TrainingRun::learn_from_text() {
  const MethodStates& states = trainer_->model().feed_forwards.states();
  if (!wants_text(states)) return;  // equal on all ranks
  std::vector<std::int64_t> count_of_id(static_cast<std::size_t>(recipe_.model.vocab_size));
  agree(world_, [&] {
    constexpr std::int64_t most = 1 << 20;
    const std::int64_t rank = world_.rank(), ranks = world_.size();
    for (const Dataset& dataset : training_->datasets()) {
      const std::int64_t begin = dataset.tokens() * rank / ranks, end = dataset.tokens() * (rank + 1) / ranks;
      for (std::int64_t first = begin; first < end; first += most) {
        world_.note_progress();
        dataset.count_ids(first, std::min(first + most, end), count_of_id);
      }
    }
  });
  const Tensor all = Tensor::from(count_of_id, {recipe_.model.vocab_size});
  world_.all_reduce(all, ReduceOp::sum, Purpose::statistics);
  conclave::learn_from_text(recipe_.model.moe, all.to_host<std::int64_t>(), states);
}

void TrainingRun::describe() {
  const ParameterCount all = count_parameters(recipe_.model), active = count_active_parameters(recipe_.model);
  logger_.info(recipe_.name, ": ", fixed(static_cast<double>(all.total()) / 1e6, 2), " M parameters, ",
               fixed(static_cast<double>(active.total()) / 1e6, 2), " M active per token; ",
               counted(recipe_.model.moe.num_experts, "expert"), ", ", recipe_.model.moe.num_experts_per_tok,
               " per token");
  if (!remark_.empty()) logger_.info(remark_);
  logger_.info(counted(world_.size(), "rank"), " with ", counted(threads_, "thread"), " each",
               device_.kind() == DeviceKind::cpu ? "" : join_text(" on ", device_.name()),
               device_.kind() == DeviceKind::cpu && recipe_.training.precision == NumberFormat::bf16
                   ? join_text(", bf16 multiplied ", cpu::bfloat16_products())
                   : "",
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
