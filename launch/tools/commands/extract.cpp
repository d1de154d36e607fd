#include "launch/tools/commands/extract.h"

#include <cstdio>
#include <iostream>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/shell_word.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/written_files.h"
#include "launch/tools/convert/extract.h"
#include "launch/train/checkpoint_choice.h"
#include "launch/train/job.h"

namespace conclave {

int run_extract(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "extract",
       .positionals = "CHECKPOINT [key.path=value ...]",
       .summary = "Makes a smaller checkpoint with the experts that the text of one domain needs most.",
       .options = {{"domain", "NAME", "whose text the experts are measured on"},
                   {"experts", "K", "routed experts that each layer keeps; shared experts all stay"},
                   {"output", "DIR",
                    "the run directory to be made; default OUTPUT-NAME-K, where OUTPUT is the "
                    "recipe's"},
                   {"sequences", "N", "sequences of that text, evenly spaced (default 64); 0: all of it"},
                   {"calibration", "SET", "train, the default, or validation: whose text is read"}},
       .more =
           "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory (its newest "
           "good one).\n"
           "Layer by layer, those below already pruned, the K experts with the largest mean router\n"
           "probability are kept. DIR becomes a run directory: recipe.yaml, extracted.json (which experts\n"
           "were kept) and checkpoints/step-00000000, for evaluate, generate, export and train.\n"
           "key.path=value changes its recipe, model aside. Works under mpirun too.\n"
           "docs/specialisation.md says more.\n\n"
           "Examples:\n"
           "  conclave extract runs/quickstart --domain python --experts 4\n"
           "  conclave extract runs/quickstart --domain python --experts 4 --output runs/python-4\n"
           "  conclave evaluate runs/quickstart --against runs/python-4\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::string path = options.only_positional("checkpoint");
  for (const char* name : {"domain", "experts"})
    check(options.has(name), Fault::request, "extract: --", name, " is missing (`conclave extract --help`)");
  const std::string calibration = options.text("calibration", "train");
  check(calibration == "train" || calibration == "validation", Fault::request, "extract: --calibration ",
        calibration, " came, expected train or validation");
  if (options.has("output")) check_writable("extract", options.text("output", ""), MissingFolders::are_made);
  ExtractOptions extraction{.domain = options.text("domain", ""),
                            .experts = options.whole_number("experts", 0, 1),
                            .calibrate_on_training = calibration == "train",
                            .sequences = options.whole_number("sequences", 64, 0),
                            .run = options.text("output", ""),
                            .overrides = options.overrides()};
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    if (world->rank() == 0) options.warn_of_comments();
    extraction.checkpoint = *find_checkpoint(*world, path).path;
    const Recipe recipe = extract_experts(extraction, *world, [&](const std::string& line) {
      if (world->rank() == 0) std::cout << printable(line) << std::endl;
    });
    if (world->rank() == 0)
      std::cout << printable(join_text("Done: ", recipe.output,
                                       "/checkpoints/step-00000000. Try: conclave evaluate ",
                                       shell_word(path), " --against ", shell_word(recipe.output)))
                << std::endl;
    return 0;
  });
}

}  // namespace conclave
