// Trains on ranks that belong to this program: it starts MPI itself, keeps its last rank for other work, and
// hands a communicator of the others to Conclave, which duplicates it. Errors of Conclave come as exceptions;
// what it wants to say goes through the Logger that it is given, here a file of this program's choice.
//   mpirun -n 3 own_ranks LOG
#include "framework/base/random.h"
#include "framework/telemetry/logger.h"
#include "launch/train/trainer.h"
#include "parallel/mpi.h"

using namespace conclave;

namespace {

Batch random_tokens(std::int64_t step, std::int64_t first, std::int64_t count) {
  Batch batch{.sequences = count, .length = 32};
  batch.document_start.assign(static_cast<std::size_t>(count * 32), 0);
  batch.domain.assign(static_cast<std::size_t>(count), 0);
  for (std::int64_t i = 0; i < count * 32; ++i) {
    const RandomKey key = RandomKey(7).with(static_cast<std::uint64_t>(step));
    const auto token = static_cast<std::int32_t>(key.below(static_cast<std::uint64_t>(first * 32 + i), 16));
    batch.tokens.push_back(token);
    batch.targets.push_back(2 * token);  // easy to learn
  }
  return batch;
}

/// Returns the last loss; on every rank of `ranks` alike.
double train(MPI_Comm ranks, const char* log) {
  const std::shared_ptr<Communicator> world = mpi_communicator(ranks, "training");
  Logger logger({.rank = world->rank(), .terminal = -1});  // no terminal: the file alone
  if (world->rank() == 0) logger.open_file(log);
  Recipe recipe;
  recipe.model.vocab_size = 32;
  recipe.model.hidden_size = 32;
  recipe.model.head_dim = 8;
  recipe.model.num_hidden_layers = 1;
  recipe.data.sequence_length = 32;
  recipe.parallel.expert = world->size();  // 16 experts over these ranks
  recipe.training.global_batch_size = 8 * world->size();
  recipe.training.steps = 80;
  Mesh mesh(world, {.expert = recipe.parallel.expert});
  Trainer trainer(recipe, mesh, random_tokens);
  StepResult result;
  while (trainer.steps_done() < recipe.training.steps) {
    result = trainer.step();
    if (result.step % 10 == 0) logger.info("step ", result.step, "  loss ", result.lm_loss);
  }
  return result.lm_loss;
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 2) return 2;
  int level = 0;
  MPI_Init_thread(&argument_count, &arguments, MPI_THREAD_SERIALIZED, &level);
  int rank = 0, size = 0, code = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const bool trains = rank + 1 < size;
  MPI_Comm ours = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, trains ? 0 : 1, rank, &ours);
  if (trains) {
    try {
      code = train(ours, arguments[1]) < 1.0 ? 0 : 1;
    } catch (const Error& error) {
      code = error.exit_code();  // a program of many ranks would end all of them here
    }
  }
  MPI_Comm_free(&ours);
  MPI_Finalize();
  return code;
}
