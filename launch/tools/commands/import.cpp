#include "launch/tools/commands/import.h"

#include <cstdio>
#include <iostream>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/shell_word.h"
#include "framework/base/text.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/written_files.h"
#include "launch/tools/convert/import.h"

namespace conclave {
namespace {

std::optional<UpcycleOptions> upcycle_options(const Options& options) {
  if (options.has("upcycle")) {
    const std::string kind = options.text("upcycle", "");
    check(kind == "copy" || kind == "split", Fault::request, "import: --upcycle ", kind,
          " came, expected copy or split");
    return UpcycleOptions{.kind = kind == "copy" ? UpcycleOptions::Kind::copy : UpcycleOptions::Kind::split,
                          .experts = options.whole_number("experts", 0, 1),
                          .top_k = options.whole_number("top-k", 0, 1),
                          .parts = options.whole_number("parts", 0, 1),
                          .router_range = options.number("router-range", -1),
                          .seed = static_cast<std::uint64_t>(options.whole_number("seed", 1234, 0))};
  }
  for (const char* name : {"experts", "top-k", "parts", "router-range", "seed"})
    check(!options.has(name), Fault::request, "import: --", name, " goes with --upcycle only");
  return {};
}

}  // namespace

int run_import(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "import",
       .positionals = "DIR CHECKPOINT [key.path=value ...]",
       .summary = "Makes the first checkpoint of a run from a Hugging Face model directory.",
       .options = {{"recipe", "RECIPE.yaml",
                    "a recipe for all but the shape of the model: data, batches, optimizer, losses"},
                   {"upcycle", "KIND",
                    "experts from the MLPs of a dense model: copy, each a whole copy; split, each a part"},
                   {"experts", "N", "experts of a block"},
                   {"top-k", "K", "experts that each token is sent to"},
                   {"parts", "P", "parts that split cuts an MLP into; default K"},
                   {"router-range", "X",
                    "standard deviation of the routers' weights; default: initializer_range"},
                   {"seed", "N", "of the routers' weights (default 1234)"}},
       .more =
           "DIR holds config.json and *.safetensors of an architecture that docs/hugging_face.md lists.\n"
           "CHECKPOINT becomes a run directory: recipe.yaml and checkpoints/step-00000000, with an\n"
           "optimizer at its beginning. key.path=value changes the recipe. docs/hugging_face.md says "
           "more.\n\n"
           "Examples:\n"
           "  conclave import exported runs/imported --recipe examples/quickstart.yaml training.steps=50\n"
           "  conclave import Qwen3-0.6B runs/upcycled --upcycle copy --experts 8 --top-k 2\n"
           "  conclave import Qwen3-0.6B runs/upcycled --upcycle split --experts 32 --top-k 8 --parts 4\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::vector<std::string>& places = options.positionals();
  check(places.size() == 2, Fault::request,
        "import: ", counted(static_cast<std::int64_t>(places.size()), "place"),
        " came, expected two, a Hugging Face model directory and the directory of a run (`conclave "
        "import --help`)");
  check_writable("import", places[1], MissingFolders::are_made);
  options.warn_of_comments();
  const Recipe recipe =
      import_model({.directory = places[0],
                    .run = places[1],
                    .recipe = options.text("recipe", ""),
                    .overrides = options.overrides(),
                    .upcycle = upcycle_options(options)},
                   [](const std::string& line) { std::cout << printable(line) << std::endl; });
  std::cout << printable(join_text("Done: ", places[1], "/checkpoints/step-00000000. Try: conclave train ",
                                   shell_word(places[1] + "/recipe.yaml")))
            << (recipe.data.train.empty() ? " 'data.train=[{path: PREFIX, domain: NAME}]'" : "") << std::endl;
  return 0;
}

}  // namespace conclave
