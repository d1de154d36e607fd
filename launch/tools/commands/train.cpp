#include "launch/tools/commands/train.h"

#include <cstdio>

#include "launch/tools/commands/command_line.h"
#include "launch/tools/convert/architecture.h"
#include "launch/train/earlier_files.h"
#include "launch/train/job.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "launch/train/run/training_run.h"
#include "launch/train/stop_signals.h"
#include "parallel/agreement.h"

namespace conclave {

int run_train(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "train",
       .positionals = "RECIPE.yaml [key.path=value ...]",
       .summary = "Pretrains the model that a recipe describes, on one process or on every rank of mpirun.",
       .options = {},
       .more =
           "Everything is in the recipe; key.path=value changes a key for this run. `conclave validate` "
           "lists all\n"
           "keys with their meaning. The run goes on from the newest good checkpoint in its output "
           "directory\n"
           "unless checkpoint.resume=false, and every difference to that checkpoint's recipe is listed.\n"
           "What would give the checkpoint another meaning is refused; docs/checkpoints.md says which keys.\n"
           "SIGTERM, SIGINT, SIGHUP and SIGUSR1 finish the step, save and exit with 75; a second one leaves\n"
           "at once. A signal that is ignored at the start, as under nohup, stays ignored.\n"
           "Plain mpirun ends its ranks two seconds after a Ctrl-C, which may be too soon for a save: use\n"
           "launch/run.sh, or send SIGUSR1 to mpirun.\n"
           "docs/reliability.md lists all ways for a run to end.\n"
           "training.device=cuda trains on one GPU per rank; emulated runs the code of a GPU on the "
           "host's cores,\n"
           "slowly, for tests.\n\n"
           "Examples:\n"
           "  conclave train examples/quickstart.yaml\n"
           "  mpirun -n 2 conclave train examples/quickstart.yaml training.steps=100 output=runs/short\n"
           "  conclave train examples/quickstart.yaml \\\n"
           "      'model.moe.balance=[{scope: micro_batch, coefficient: 0.01}]' output=runs/micro\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::string path = options.only_positional("recipe");
  ignore_closed_pipes();
  // Before any other thread; a failure is told when the ranks know of each other.
  const std::optional<Error> not_listening = failure_of(listen_for_stop_signals);
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    if (world->rank() == 0) options.warn_of_comments();
    Recipe recipe;
    agree(*world, [&] {
      if (not_listening) throw *not_listening;
      recipe = load_recipe(path, options.overrides());
      validate_recipe(recipe, world->size());
      refuse_foreign_recipe(path, recipe.output);
    });
    require_same(*world, "The recipe", to_yaml(recipe));
    return TrainingRun(recipe, world, export_sentence(recipe.model)).run();
  });
}

}  // namespace conclave
