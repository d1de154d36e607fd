#include "launch/tools/commands/bench.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <sstream>

#include "framework/base/printable.h"
#include "framework/recipe/nearest.h"
#include "framework/store/durable_file.h"
#include "launch/tools/bench/bench.h"
#include "launch/tools/bench/machine_probe.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/written_files.h"
#include "launch/train/job.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

struct Subject {
  const char* name;
  void (*run)(Bench&);
  const char* heading;
};

/// In the order in which they run: training first, whose memory is measured before others have taken any.
constexpr Subject subjects[] = {
    {"train", bench_training, "Training, with matrix products between its steps"},
    {"layers", bench_layers, "One layer on one micro-batch"},
    {"generate", bench_generation, "Generation, of one rank"},
    {"products", bench_products, "Matrix products, of one rank"},
    {"kernels", bench_kernels, "Kernels of a step, of one rank"},
    {"memory", bench_memory, "Memory bandwidth, of one rank"},
    {"collectives", bench_collectives, "Collectives, of two ranks and more"},
    {"checkpoint", bench_checkpoint, "Checkpoints"},
};

std::vector<Subject> chosen_subjects(const std::string& only) {
  std::vector<Subject> chosen;
  std::vector<std::string> words;
  std::istringstream text(only);
  for (std::string word; std::getline(text, word, ',');) words.push_back(word);
  for (const Subject& subject : subjects)
    if (words.empty() || std::find(words.begin(), words.end(), subject.name) != words.end())
      chosen.push_back(subject);
  std::vector<std::string> known;
  for (const Subject& subject : subjects) known.emplace_back(subject.name);
  for (const std::string& word : words)
    check(std::find(known.begin(), known.end(), word) != known.end(), Fault::request, "bench --only: \"",
          word, "\" came, expected some of ", join_words(known), ", with commas between them");
  return chosen;
}

Json matrix_products(const BestProducts& best) {
  Json rows = Json::array();
  for (std::size_t i = 0; i < best.shapes.size(); ++i) {
    const ProductShape& shape = best.shapes[i];
    rows.push_back({{"use", shape.use},
                    {"m", shape.m},
                    {"n", shape.n},
                    {"k", shape.k},
                    {"flops_per_second", best.rates[i]}});
  }
  return rows;
}

const Figure* find(const std::vector<Figure>& figures, const std::string& name) {
  for (const Figure& figure : figures)
    if (figure.subject == "train" && figure.name == name) return &figure;
  return nullptr;
}

/// The figures of training once more, under names that scripts have relied on.
Json training_summary(const Bench& bench) {
  const Json rate = to_json(*find(bench.figures, "tokens")),
             flops = to_json(*find(bench.figures, "model flops"));
  return {{"recipe", bench.recipe.name},
          {"ranks", bench.mesh.world().size()},
          {"steps", bench.steps},
          {"settle", bench.settle},
          {"tokens_per_second", rate["value"]},
          {"tokens_per_second_min", rate["min"]},
          {"tokens_per_second_max", rate["max"]},
          {"model_flops_per_token",
           training_flops_per_token(bench.recipe.model, bench.recipe.data.sequence_length)},
          {"model_flops_per_second", flops["value"]},
          {"fraction_of_matmul_rate", flops["ratio"]},
          {"fraction_min", flops["ratio_min"]},
          {"fraction_max", flops["ratio_max"]},
          {"peak_memory_bytes", to_json(*find(bench.figures, "peak memory of tensors"))["value"]}};
}

Json report_of(const Bench& bench, int threads) {
  Json report{{"recipe", bench.recipe.name},
              {"ranks", bench.mesh.world().size()},
              {"threads", threads},
              {"device", bench.device.name()}};
  if (bench.best.best() > 0) {
    report["matmul"] = matrix_products(bench.best);
    report["matmul_fp32_flops_per_second"] = bench.best.best();
  }
  if (find(bench.figures, "tokens") != nullptr) report["training"] = training_summary(bench);
  report["figures"] = Json::array();
  for (const Figure& figure : bench.figures) report["figures"].push_back(to_json(figure));
  return report;
}

void print(const Bench& bench, int threads, const std::vector<Subject>& chosen) {
  std::printf(
      "%s on %s, %d rank(s) of %d thread(s). Each line: the median, half the range, and the median of the "
      "ratios\n"
      "to a limit measured at the same time (smallest to largest).\n",
      printable(bench.recipe.name).c_str(), printable(bench.device.name()).c_str(), bench.mesh.world().size(),
      threads);
  for (const Subject& subject : chosen) {
    bool headed = false;
    for (const Figure& figure : bench.figures) {
      if (figure.subject != subject.name) continue;
      if (!headed) std::printf("\n%s\n", subject.heading);
      headed = true;
      std::printf("%s\n", to_line(figure).c_str());
    }
  }
}

/// True where a text describes a machine.
bool describes_a_machine(std::string_view text) {
  try {
    parse_machine(std::string(text), "");
    return true;
  } catch (const Error&) {
    return false;
  }
}

int describe_machine(const std::string& file) {
  check_writable("bench", file, MissingFolders::are_refused);
  refuse_foreign_file("bench", file, "a description that `conclave bench --machine` wrote",
                      describes_a_machine);
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    const MachineModel machine = measure_machine(*world, choose_threads(*world, 0));
    agree(*world, [&] {
      if (world->rank() == 0) write_text_durably(file, to_yaml(machine));
    });
    if (world->rank() == 0)
      std::printf("%s", printable(join_text(to_yaml(machine), file, " is written.\n")).c_str());
    return 0;
  });
}

}  // namespace

int run_bench(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "bench",
       .positionals = "[RECIPE.yaml] [key.path=value ...]",
       .summary = "Measures what this machine can do and what Conclave makes of it, side by side.",
       .options = {{"only", "SUBJECTS",
                    "some of train, layers, generate, products, kernels, memory, collectives, checkpoint"},
                   {"repeat", "N", "how often everything but training is measured (default 5)"},
                   {"steps", "N", "training steps to time (default 10); 0 measures the machine alone"},
                   {"settle", "N",
                    "training steps before the timed ones, in which the router learns balance (default 0)"},
                   {"directory", "DIR", "where checkpoints are written for a while (default: here)"},
                   {"machine", "FILE",
                    "measures what plans of time in fp32 need and writes it to FILE, nothing else"},
                   {"json", "", "print one JSON object instead of tables"}},
       .more =
           "Every figure is taken several times, in turn with its limit, so that both see the same moods "
           "of the\nmachine. Training is on random tokens: no data are needed. Without a recipe the model "
           "of\nexamples/benchmark.yaml is trained. It measures the device of training.device.\n"
           "docs/benchmarks.md says what each figure means.\n\n"
           "Examples:\n"
           "  conclave bench\n"
           "  conclave bench --only products,memory --repeat 20\n"
           "  conclave bench examples/benchmark.yaml --only train --json model.hidden_size=256\n"
           "  conclave bench --only products,kernels,train training.device=cuda training.precision=bf16\n"
           "  mpirun -n 2 conclave bench parallel.expert=2\n"
           "  mpirun -n 2 conclave bench --machine here.yaml; conclave validate RECIPE.yaml --machine "
           "here.yaml\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::int64_t steps = options.whole_number("steps", 10, 0);
  const std::int64_t settle = options.whole_number("settle", 0, 0);
  const std::int64_t repeats = options.whole_number("repeat", 5, 1);
  std::vector<Subject> chosen = chosen_subjects(options.text("only", ""));
  if (steps == 0)
    std::erase_if(chosen, [](const Subject& subject) {
      const std::string_view name(subject.name);
      return name != "products" && name != "kernels" && name != "memory" && name != "collectives";
    });
  check(!chosen.empty(), Fault::request, "bench: --only ", options.text("only", ""),
        " came with --steps 0, which leaves out train, layers, generate and checkpoint, so nothing is "
        "measured; expected products, kernels, memory or collectives, or more steps");
  check(options.positionals().size() <= 1, Fault::request, "bench: ", options.positionals().size(),
        " recipes came, expected one or none");
  if (options.has("machine")) {
    for (const char* other : {"only", "repeat", "steps", "settle", "directory", "json"})
      check(!options.has(other), Fault::request, "bench: --", other,
            " came with --machine, which measures the same for every recipe; expected --machine FILE alone");
    check(options.positionals().empty() && options.overrides().empty(), Fault::request,
          "bench: a recipe or key.path=value came with --machine, which measures fp32 rates that hold for "
          "every recipe; expected --machine FILE alone");
    return describe_machine(options.text("machine", ""));
  }
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    if (world->rank() == 0) options.warn_of_comments();
    const bool alone =
        world->size() == 1 && chosen.size() == 1 && std::string_view(chosen[0].name) == "collectives";
    check(!alone, Fault::request,
          "bench: --only collectives came on one rank, which has no other to talk to; expected at least two: "
          "mpirun -n 2 conclave bench --only collectives");
    Recipe recipe = benchmark_recipe();
    agree(*world, [&] {
      if (options.positionals().empty()) {
        recipe.training.global_batch_size *= world->size();  // as much work for each rank
        for (const std::string& change : options.overrides()) apply_override(recipe, change);
      } else {
        recipe = load_recipe(options.positionals()[0], options.overrides());
      }
      validate_recipe(recipe, world->size());
    });
    const int threads = choose_threads(*world, recipe.training.threads);
    Mesh mesh(world, degrees_of(recipe.parallel));
    Bench bench{.recipe = recipe,
                .mesh = mesh,
                .device = choose_device(*world, recipe.training.device),
                .repeats = repeats,
                .steps = steps,
                .settle = settle,
                .directory = options.text("directory", ".")};
    for (const Subject& subject : chosen) subject.run(bench);
    if (world->rank() != 0) return 0;
    if (options.has("json"))
      std::cout << report_of(bench, threads).dump(2) << "\n";
    else
      print(bench, threads, chosen);
    return 0;
  });
}

}  // namespace conclave
