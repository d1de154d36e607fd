#include "launch/tools/commands/validate.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <numeric>
#include <optional>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/text.h"
#include "framework/data/batch_ramp.h"
#include "framework/data/mixture.h"
#include "framework/data/token_file.h"
#include "launch/plan/few_steps.h"
#include "launch/plan/model_costs.h"
#include "launch/plan/plan.h"
#include "launch/plan/plan_time.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/commands/recipe_texts.h"
#include "launch/tools/convert/architecture.h"
#include "launch/tools/doctor/gpu_facts.h"
#include "launch/tools/doctor/placement.h"
#include "launch/train/model_size.h"
#include "launch/train/passes.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "layers/moe/moe.h"
#include "layers/transformer.h"
#include "optim/groups.h"

namespace conclave {
namespace {

std::string with_commas(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

void print_row(const char* name, const std::string& value, const std::string& note = "") {
  std::printf("  %-50s %12s%s%s\n", printable(name).c_str(), value.c_str(), note.empty() ? "" : "  ",
              note.c_str());
}

/// The model as a tree, each part with what it costs.
void print_parameters(const Recipe& recipe, int ranks) {
  std::printf("\n%-56s %16s %16s %10s %11s\n", "Parameters", "total", "active per token", "flops each",
              "a rank's");
  for (const CostRow& row : model_costs(recipe, ranks)) {
    char flops[32] = "";
    if (row.flops > 0) std::snprintf(flops, sizeof flops, "%.3g", row.flops);
    // printf pads by bytes, and a branch of the tree is made of characters with three.
    const auto columns = std::count_if(row.name.begin(), row.name.end(),
                                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
    const std::string gap(static_cast<std::size_t>(std::max<std::ptrdiff_t>(54 - columns, 0)), ' ');
    if (row.total == 0)
      std::printf("  %s\n", row.name.c_str());
    else
      std::printf("  %s%s %16s %16s %10s %11s\n", row.name.c_str(), gap.c_str(),
                  with_commas(row.total).c_str(), with_commas(row.active).c_str(), flops,
                  bytes_text(row.bytes).c_str());
  }
  std::printf(
      "  Training takes %.3g floating-point operations per token; the last column is a rank's parameters,\n"
      "  gradients and AdamW moments.\n",
      training_flops_per_token(recipe.model, recipe.data.sequence_length));
}

/// True where parallel.dispatch_rows cuts the worst case into rounds.
std::string rounds_text(const ParallelRecipe& p, const LayoutPlan& layout) {
  if (p.dispatch_rows == 0 || p.dispatcher != DispatcherKind::all_to_all || p.expert * p.expert_tensor == 1)
    return "";
  const std::int64_t rounds = (layout.worst_expert_rows + p.dispatch_rows - 1) / p.dispatch_rows;
  return rounds > 1 ? join_text("in ", rounds, " rounds of at most ", p.dispatch_rows) : "";
}

void print_layout(const Recipe& recipe, int ranks) {
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const ParallelRecipe& p = recipe.parallel;
  std::printf("\nLayout\n");
  print_row("ranks", with_commas(layout.ranks));
  print_row("attention: tensor x data", join_text(p.tensor, " x ", layout.data_ranks),
            p.tensor > 1 && p.sequence ? "sequence parallel" : "");
  print_row("experts: expert_tensor x expert x expert_data",
            join_text(p.expert_tensor, " x ", p.expert, " x ", layout.expert_data_ranks));
  print_row("micro-batches per rank and step", with_commas(layout.micro_steps));
  print_row("tokens per micro-batch", with_commas(layout.tokens_per_micro_batch));
  if (layout.expected_expert_rows > 0) {
    print_row("tokens that a rank routes per micro-batch", with_commas(layout.tokens_per_shard));
    print_row("rows that a rank's experts then get, expected", with_commas(layout.expected_expert_rows));
    print_row("  at worst", with_commas(layout.worst_expert_rows), rounds_text(p, layout));
  }
  print_row("tokens per step, all ranks", with_commas(layout.tokens_per_step));
  print_row(
      "tokens of the whole run", with_commas(layout.tokens_per_step * recipe.training.steps),
      recipe.training.batch_ramp.start_batch_size > 0 ? "at most: the batch ramp begins with fewer" : "");
}

/// The memory of the GPUs here, where there are any: the plan may be for another machine.
void print_gpus(const MemoryPlan& memory) {
  for (const GpuFacts& gpu : read_gpus().gpus)
    print_row("  memory of a GPU here", bytes_text(static_cast<double>(gpu.memory)),
              join_text(printable(gpu.name), memory.total() < static_cast<double>(gpu.memory)
                                                 ? ", which holds it"
                                                 : ", which does not hold it"));
}

void print_memory(const Recipe& recipe, int ranks, const DryStep& step) {
  const MemoryPlan memory = plan_memory(recipe, ranks, step);
  std::printf("\nMemory per rank%s\n",
              recipe.training.device == DeviceKind::cpu
                  ? ""
                  : " (as the CPU needs it; libraries of a GPU take theirs besides)");
  print_row("parameters", bytes_text(memory.parameters));
  if (memory.rounded_parameters > 0) print_row("their copy in bf16", bytes_text(memory.rounded_parameters));
  print_row("gradients", bytes_text(memory.gradients));
  print_row("AdamW moments", bytes_text(memory.moments),
            recipe.parallel.zero > 0 ? "shared out over the replicas" : "");
  print_row("tables of where their elements lie", bytes_text(memory.pieces));
  if (memory.reduced_gradients > 0)
    print_row("reduce-scattered gradients", bytes_text(memory.reduced_gradients));
  if (memory.rounding > 0) print_row("rounding to the allocator's sizes", bytes_text(memory.rounding));
  print_row("activations of one micro-batch, expected", bytes_text(memory.activations));
  print_row("  at worst, all tokens to one rank's experts", bytes_text(memory.worst_activations));
  print_row("all, expected", bytes_text(memory.total()),
            "besides the program, its libraries' buffers and the token files' pages");
  print_row("  at worst", bytes_text(memory.worst_total()));
  if (recipe.training.device == DeviceKind::cuda) print_gpus(memory);
  print_row("once a checkpoint was saved, in the host's memory", bytes_text(memory.snapshot),
            "the copy that is written while training goes on");
  std::printf("  largest single buffers among them:\n");
  for (std::size_t i = 0; i < memory.largest_buffers.size() && i < 4; ++i)
    print_row(("  " + memory.largest_buffers[i].name).c_str(), bytes_text(memory.largest_buffers[i].bytes));
}

void print_network(const Recipe& recipe, int ranks, const DryStep& step) {
  const NetworkPlan network = plan_network(step);
  const bool sharded = recipe.parallel.zero > 0;
  std::printf("\nNetwork per rank and step: what the rank hands over for others\n");
  print_row(sharded ? "gradients, reduce-scattered" : "gradients, all-reduced",
            bytes_text(network.gradients));
  if (sharded) print_row("parameters, gathered after the step", bytes_text(network.parameters));
  print_row("activations between tensor ranks", bytes_text(network.activations));
  print_row("rows dispatched to experts, expected", bytes_text(network.dispatch));
  print_row("answers combined, expected", bytes_text(network.combine));
  print_row("statistics, all-reduced", bytes_text(network.statistics));
  print_row("all", bytes_text(network.total()), ranks == 1 ? "one rank sends nothing" : "");
}

/// 0.0123 -> "12.300 ms"
std::string seconds_text(double seconds) {
  char text[64];
  std::snprintf(text, sizeof text, seconds < 1 ? "%.3f ms" : "%.3f s", seconds < 1 ? 1e3 * seconds : seconds);
  return text;
}

void print_time(const Recipe& recipe, int ranks, const MachineModel& machine, const DryStep& dry) {
  const TimePlan time = plan_time(recipe, ranks, machine, dry);
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const double processors = processors_of_rank(recipe, ranks, machine);
  std::printf("\nTime of a step on %s, calculated\n", printable(machine.name).c_str());
  print_row("processors of a rank", join_text(processors),
            processors < 1 ? "ranks share processors and take turns" : "");
  const double step = time.seconds();
  const auto share = [&](double seconds) {
    char text[32];
    std::snprintf(text, sizeof text, "%5.1f %%", 100 * seconds / step);
    return std::string(text);
  };
  for (const NamedSeconds& part : time.computing)
    print_row(part.name.c_str(), seconds_text(part.seconds), share(part.seconds));
  for (const NamedSeconds& part : time.network)
    if (part.seconds > 0)
      print_row((part.name + " on the network").c_str(), seconds_text(part.seconds), share(part.seconds));
  if (time.hidden > 0)
    print_row("  of it hidden under computing", seconds_text(time.hidden), share(-time.hidden));
  print_row("a step", seconds_text(step));
  const double tokens = static_cast<double>(layout.tokens_per_step) / step;
  char text[64];
  std::snprintf(text, sizeof text, "%.4g", tokens);
  print_row("tokens per second, all ranks", text);
  const double flops =
      tokens * training_flops_per_token(recipe.model, recipe.data.sequence_length) / (ranks * processors);
  std::snprintf(text, sizeof text, "%.3f", flops / machine.products.operations_per_second);
  print_row("model flops over the products' rate", text);
}

void print_passes(const Recipe& recipe, const TrainingData& data) {
  std::vector<std::int64_t> tokens, sequences;
  for (const Dataset& dataset : data.datasets()) {
    tokens.push_back(dataset.tokens());
    sequences.push_back(dataset.full_sequences());
  }
  std::int64_t drawn = 0, step = 0;
  for (std::int64_t size; step < recipe.training.steps; ++step, drawn += size) {
    size = batch_size_at(recipe.training, step);
    if (size == recipe.training.global_batch_size) break;  // a ramp is over
  }
  drawn += (recipe.training.steps - step) * recipe.training.global_batch_size;
  const std::vector<double> weights = mixture_weights(recipe.data.train, tokens),
                            passes = planned_passes(weights, sequences, drawn);
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::printf("\nPasses over the training text in %s\n", counted(recipe.training.steps, "step").c_str());
  for (std::size_t i = 0; i < tokens.size(); ++i)
    print_row(join_text(recipe.data.train[i].domain, " (", recipe.data.train[i].path, ")").c_str(),
              passes_text(passes[i]),
              join_text(with_commas(tokens[i]), " tokens, ", fixed(100 * weights[i] / all, 1),
                        " % of the mixture"));
}

/// How to start the ranks on machines like this one. The model's own machine may be another: it is what is
/// here.
void print_placement(const Recipe& recipe, int ranks) {
  if (recipe.training.device != DeviceKind::cpu) return;
  const MachineFacts facts = read_machine();
  const RankPlacement placement = place_ranks(facts, ranks, static_cast<int>(recipe.training.threads));
  std::printf("\nPlacement on a machine like this one: %zu processors of %d cores in %zu NUMA %s\n",
              facts.processors.size(), facts.cores, facts.nodes.size(),
              facts.nodes.size() == 1 ? "node" : "nodes");
  std::printf("  %s conclave train ...\n", mpirun_text(placement).c_str());
  if (const std::string srun = srun_text(placement); !srun.empty())
    std::printf("  %s conclave train ...\n", srun.c_str());
  for (const std::string& sentence :
       placement_advice(facts, placement, static_cast<int>(recipe.parallel.tensor)))
    std::printf("  %s\n", sentence.c_str());
}

}  // namespace

int run_validate(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "validate",
       .positionals = "RECIPE.yaml [key.path=value ...]",
       .summary = "Checks a recipe without training and prints what it resolves to and what it will need.",
       .options = {{"ranks", "N", "plans for N ranks without having them; 1 if not given"},
                   {"machine", "FILE",
                    "also says how long a step takes there; `conclave bench --machine FILE` "
                    "describes this machine"},
                   {"ranks-per-node", "N", "of the machine, in place of what its description says"},
                   {"print", "KEY", "prints the value of this key alone, such as output, for scripts"}},
       .more =
           "Every key is printed with its meaning and, in brackets, its default. Token files that are here\n"
           "are checked as training checks them; missing ones get a warning.\n"
           "example: conclave validate examples/quickstart.yaml --ranks 8 training.global_batch_size=64"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::string path = options.only_positional("recipe");
  const std::int64_t ranks = options.whole_number("ranks", 1, 1);
  check(options.has("machine") || !options.has("ranks-per-node"), Fault::request,
        "validate: --ranks-per-node came without --machine FILE");
  check(ranks <= 1'000'000, Fault::request, "validate: --ranks ", ranks, " came, expected at most 1000000");
  const Recipe recipe = load_recipe(path, options.overrides());
  validate_recipe(recipe, static_cast<int>(ranks));
  check_can_be_planned(recipe, static_cast<int>(ranks));
  // The model without its memory: names for the optimizer's groups.
  ParameterSet parameters;
  const Transformer transformer(parameters, recipe.model, FeedForwards(recipe.model), Recompute::none);
  check_groups(parameters, recipe.optimizer);
  if (options.has("print")) {
    std::printf("%s\n", key_text(recipe, options.text("print", "")).c_str());
    return 0;
  }

  std::optional<MachineModel> machine;
  if (options.has("machine")) {
    machine = load_machine(options.text("machine", ""));
    machine->ranks_per_node = options.whole_number("ranks-per-node", machine->ranks_per_node, 1);
  }
  const RecipeTexts texts = open_texts(recipe);
  const DryStep step =
      plan_step(recipe, static_cast<int>(ranks));  // refuses what is too large before a word is said

  std::printf("%s", printable(to_annotated_yaml(recipe)).c_str());
  print_parameters(recipe, static_cast<int>(ranks));
  print_layout(recipe, static_cast<int>(ranks));
  print_memory(recipe, static_cast<int>(ranks), step);
  print_network(recipe, static_cast<int>(ranks), step);
  if (texts.training && texts.training->datasets().size() == recipe.data.train.size())
    print_passes(recipe, *texts.training);
  print_placement(recipe, static_cast<int>(ranks));
  if (machine) print_time(recipe, static_cast<int>(ranks), *machine, step);
  std::printf("\n");
  options.warn_of_comments();
  for (const std::string& sentence : warnings(recipe))
    std::printf("warning: %s\n", printable(sentence).c_str());
  for (const std::string& sentence : texts.missing) std::printf("warning: %s\n", printable(sentence).c_str());
  std::printf("%s\n", printable(export_sentence(recipe.model)).c_str());
  std::printf("%s is valid on %s.\n", printable(path).c_str(), counted(ranks, "rank").c_str());
  return 0;
}

}  // namespace conclave
