// How the installed library behaves in a program that is not its own, on 2 ranks: manners LOG. The program
// has started MPI, has error handlers, signal handlers and a message under way on its communicator; after
// training all of them are as they were, and nothing has been printed: standard output and error of the
// process go to LOG.stdout meanwhile, which must stay empty. What Conclave has to say is in LOG.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <array>

#include "framework/base/version.h"
#include "framework/telemetry/logger.h"
#include "launch/train/trainer.h"
#include "parallel/mpi.h"

using namespace conclave;

namespace {

int mistakes = 0;
int terminal = 2;  // where this program speaks itself

void expect(bool as_expected, const char* what) {
  if (as_expected) return;
  ++mistakes;
  dprintf(terminal, "manners: %s\n", what);
}

int errors_seen = 0;
void on_error(MPI_Comm*, int*, ...) {
  ++errors_seen;
}
void on_signal(int) {}

Batch batch_of(std::int64_t step, std::int64_t first, std::int64_t count) {
  Batch batch{.sequences = count, .length = 16};
  batch.document_start.assign(static_cast<std::size_t>(count * 16), 0);
  batch.domain.assign(static_cast<std::size_t>(count), 0);
  for (std::int64_t i = 0; i < count * 16; ++i) {
    batch.tokens.push_back(static_cast<std::int32_t>((step + first + i) % 32));
    batch.targets.push_back(static_cast<std::int32_t>((step + first + i + 1) % 32));
  }
  return batch;
}

Recipe tiny_recipe(int ranks) {
  Recipe recipe;
  recipe.model.vocab_size = 32;
  recipe.model.hidden_size = 32;
  recipe.model.head_dim = 8;
  recipe.model.num_hidden_layers = 2;
  recipe.data.sequence_length = 16;
  recipe.parallel.expert = ranks;
  recipe.parallel.zero = 1;
  recipe.training.global_batch_size = 4 * ranks;
  return recipe;
}

void train(MPI_Comm ranks, const char* log) {
  const std::shared_ptr<Communicator> world = mpi_communicator(ranks, "training");
  Logger logger({.rank = world->rank(), .terminal = -1});
  logger.open_file(log);
  const Recipe recipe = tiny_recipe(world->size());
  Mesh mesh(world, {.expert = recipe.parallel.expert});
  Trainer trainer(recipe, mesh, batch_of);
  for (int step = 0; step < 3; ++step) logger.info("loss ", trainer.step().lm_loss);
  try {
    const Mesh impossible(world, {.tensor = 3});
    expect(false, "a layout that 2 ranks cannot have was accepted");
  } catch (const Error& error) {
    expect(error.fault() == Fault::request, "a wrong layout is not the request's fault");
  }
}

MPI_Errhandler handler_of(MPI_Comm ranks) {
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(ranks, &handler);
  return handler;
}

}  // namespace

int main(int argument_count, char** arguments) {
  int level = 0, rank = 0, size = 0;
  MPI_Init_thread(&argument_count, &arguments, MPI_THREAD_SERIALIZED, &level);
  MPI_Comm ours = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &ours);
  MPI_Comm_rank(ours, &rank);
  MPI_Comm_size(ours, &size);
  expect(argument_count == 2 && size == 2, "2 ranks and one argument were expected");
  MPI_Errhandler own = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(on_error, &own);
  MPI_Comm_set_errhandler(ours, own);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  constexpr std::array signals = {SIGTERM, SIGINT, SIGUSR1, SIGSEGV, SIGABRT, SIGBUS, SIGFPE};
  for (const int number : signals) std::signal(number, on_signal);
  int message = 0, partner = 1 - rank;
  MPI_Request receive = MPI_REQUEST_NULL;
  MPI_Irecv(&message, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, ours, &receive);

  terminal = dup(2);
  const std::string quiet = std::string(arguments[1]) + ".stdout";
  const int sink = open(quiet.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(sink, 1);
  dup2(sink, 2);
  train(ours, arguments[1]);
  std::fflush(nullptr);
  struct stat written {};
  expect(fstat(sink, &written) == 0 && written.st_size == 0, "something was printed past the logger");

  int complete = 0;
  MPI_Test(&receive, &complete, MPI_STATUS_IGNORE);
  expect(!complete, "a message of the library arrived at its caller's communicator");
  MPI_Barrier(MPI_COMM_WORLD);  // the partner's own message comes only after both have looked
  const int greeting = 4711 + rank;
  MPI_Request send = MPI_REQUEST_NULL;
  MPI_Isend(&greeting, 1, MPI_INT, partner, 1, ours, &send);
  MPI_Wait(&receive, MPI_STATUS_IGNORE);
  MPI_Wait(&send, MPI_STATUS_IGNORE);
  expect(message == 4711 + partner, "the caller's message was changed");
  expect(handler_of(ours) == own, "the error handler of the caller's communicator was replaced");
  expect(handler_of(MPI_COMM_WORLD) == MPI_ERRORS_RETURN, "the error handler of MPI_COMM_WORLD was replaced");
  MPI_Send(&greeting, 1, MPI_INT, 99, 1, ours);  // a rank that is not there
  expect(errors_seen == 1, "the caller's error handler was not called for the caller's mistake");
  for (const int number : signals) {
    struct sigaction action {};
    sigaction(number, nullptr, &action);
    expect(action.sa_handler == on_signal, strsignal(number));
  }
  int ended = 1;
  MPI_Finalized(&ended);
  expect(!ended, "MPI was ended by the library");
  expect(std::strcmp(library_version(), CONCLAVE_VERSION) == 0, "headers and library differ in version");
  MPI_Comm_free(&ours);
  MPI_Finalize();
  if (mistakes == 0 && rank == 0) dprintf(terminal, "manners: nothing was disturbed\n");
  return mistakes == 0 ? 0 : 1;
}
