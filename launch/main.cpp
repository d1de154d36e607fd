// The `conclave` command: a table of commands, one file each under launch/commands.
#include <string>
#include <vector>

#include "launch/command_line.h"
#include "launch/commands/bench.h"
#include "launch/commands/evaluate.h"
#include "launch/commands/generate.h"
#include "launch/commands/inspect.h"
#include "launch/commands/tokenize.h"
#include "launch/commands/train.h"
#include "launch/commands/validate.h"

int main(int argument_count, char** arguments) {
  using namespace conclave;
  const std::vector<Command> commands = {
      {"train", "pretrains from a recipe, alone or under mpirun; resumes by itself", run_train},
      {"validate", "checks a recipe and prints it resolved, with sizes, memory and network use",
       run_validate},
      {"tokenize", "turns text or JSONL files into token files", run_tokenize},
      {"evaluate", "validation loss and perplexity of a checkpoint, per domain", run_evaluate},
      {"generate", "samples text from a checkpoint", run_generate},
      {"inspect", "lists what is in a checkpoint and verifies it", run_inspect},
      {"bench", "measures what this machine can do and what Conclave does on it", run_bench},
  };
  return run_command(commands, CONCLAVE_VERSION, {arguments + 1, arguments + argument_count});
}
