// Trains a tiny mixture-of-experts transformer from C++, without a recipe file and without data on disk, and
// saves a checkpoint that read_checkpoint.py opens: train DIRECTORY. Ends with 1 when the loss has not
// fallen.
#include "framework/base/random.h"
#include "framework/base/version.h"
#include "launch/train/checkpointing.h"
#include "launch/train/trainer.h"

using namespace conclave;

namespace {

Recipe tiny_recipe() {
  Recipe recipe;  // every key has its default; the names are those of recipe files
  recipe.model.vocab_size = 64;
  recipe.model.hidden_size = 64;
  recipe.model.num_hidden_layers = 2;
  recipe.model.head_dim = 16;
  recipe.model.moe.num_experts = 8;
  recipe.model.moe.moe_intermediate_size = 64;
  recipe.data.sequence_length = 32;
  recipe.training.global_batch_size = 16;
  recipe.training.micro_batch_size = 8;
  recipe.training.steps = 60;
  recipe.optimizer.schedule.warmup_steps = 5;
  return recipe;
}

/// Sequences that count by 1 to 4 from anywhere, modulo 64: a pure function of step and position, as the
/// trainer wants it, so that every layout sees the same global batch.
Batch counting(std::int64_t step, std::int64_t first, std::int64_t count) {
  constexpr std::int64_t length = 32;
  Batch batch{.sequences = count, .length = length};
  batch.document_start.assign(static_cast<std::size_t>(count * length), 0);
  batch.domain.assign(static_cast<std::size_t>(count), 0);
  for (std::int64_t position = first; position < first + count; ++position) {
    const RandomKey key =
        RandomKey(1).with(static_cast<std::uint64_t>(step)).with(static_cast<std::uint64_t>(position));
    std::uint64_t number = key.below(0, 64), stride = 1 + key.below(1, 4);
    for (std::int64_t column = 0; column < length; ++column) {
      batch.tokens.push_back(static_cast<std::int32_t>(number % 64));
      batch.targets.push_back(static_cast<std::int32_t>((number += stride) % 64));
    }
  }
  return batch;
}

}  // namespace

int main(int argument_count, char** arguments) try {
  check(argument_count == 2, Fault::request, "one argument was expected: where to save");
  Logger logger;
  logger.info("Conclave ", library_version(), ", compiled with ", CONCLAVE_VERSION);
  const Recipe recipe = tiny_recipe();
  Mesh mesh(self_communicator(), {});  // one rank; own_ranks.cpp has several
  Trainer trainer(recipe, mesh, counting);
  double first = 0, last = 0;
  for (std::int64_t step = 0; step < recipe.training.steps; ++step) {
    const StepResult result = trainer.step();
    (step == 0 ? first : last) = result.lm_loss;
    if (result.step % 10 == 0) logger.info("step ", result.step, "  loss ", result.lm_loss);
  }
  Checkpointing checkpointing(arguments[1], {.asynchronous = false}, mesh.world(), logger);
  checkpointing.save(trainer);
  if (checkpointing.last_failure()) fail(Fault::machine, *checkpointing.last_failure());
  check(last < 0.5 * first, Fault::numeric, "the loss went from ", first, " to ", last,
        ", expected less than half");
  return 0;
} catch (const Error& error) {
  Logger().error(error.what());
  return error.exit_code();
}
