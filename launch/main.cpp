// The `conclave` command: a table of commands, one file each under launch/tools/commands.
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "framework/base/version.h"
#include "launch/tools/commands/bench.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/doctor.h"
#include "launch/tools/commands/evaluate.h"
#include "launch/tools/commands/export.h"
#include "launch/tools/commands/extract.h"
#include "launch/tools/commands/generate.h"
#include "launch/tools/commands/ignored_signals.h"
#include "launch/tools/commands/import.h"
#include "launch/tools/commands/inspect.h"
#include "launch/tools/commands/ranks.h"
#include "launch/tools/commands/report.h"
#include "launch/tools/commands/standard_descriptors.h"
#include "launch/tools/commands/tokenize.h"
#include "launch/tools/commands/train.h"
#include "launch/tools/commands/validate.h"
#include "parallel/mpi.h"

namespace {

/// GNU OpenMP lets waiting threads spin for milliseconds, which on shared or oversubscribed cores takes the
/// time of the very threads they wait for: 3 to 18 times slower was seen. It reads its settings before main,
/// so the process starts itself once more with a short spin, unless the user has chosen one.
void shorten_spinning(char** arguments) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  ::setenv("GOMP_SPINCOUNT", "20000", 1);
  ::execv("/proc/self/exe", arguments);  // where it fails, the run is only slower
}

}  // namespace

int main(int argument_count, char** arguments) {
  using namespace conclave;
  restore_ignored_signals();
  open_standard_descriptors();
  shorten_spinning(arguments);
  const std::vector<Command> commands = {
      {"train", "pretrains from a recipe, alone or under mpirun; resumes by itself", run_train,
       Processes::all},
      {"validate", "checks a recipe and prints it resolved, with sizes, memory and network use",
       run_validate},
      {"tokenize", "turns text or JSONL files into token files", run_tokenize},
      {"evaluate", "validation loss and perplexity of a checkpoint, per domain", run_evaluate,
       Processes::all},
      {"generate", "samples text from a checkpoint", run_generate},
      {"inspect", "lists what is in a checkpoint and verifies it", run_inspect},
      {"export", "writes a checkpoint as a Hugging Face model directory or a GGUF file", run_export},
      {"import", "makes a checkpoint from a Hugging Face model directory, also upcycled", run_import},
      {"extract", "makes a smaller checkpoint with the experts that one domain needs", run_extract,
       Processes::all},
      {"ranks", "where each rank of a run is, or was when it died", run_ranks},
      {"report", "shows a run, or several, as one HTML page", run_report},
      {"doctor", "what this machine has for training, and what is wrong with it", run_doctor, Processes::all},
      {"bench", "measures what this machine can do and what Conclave does on it", run_bench, Processes::all},
  };
  return run_command(commands, library_version(), {arguments + 1, arguments + argument_count},
                     rank_before_mpi());
}
