#include <sys/resource.h>

#include <algorithm>
#include <cmath>

#include "framework/base/random.h"
#include "launch/plan/plan.h"
#include "launch/tools/bench/bench.h"
#include "launch/tools/bench/round_robin_router.h"
#include "launch/train/model_size.h"
#include "layers/moe/recipe.h"

namespace conclave {

Recipe benchmark_recipe() {
  Recipe recipe;
  recipe.name = "benchmark";
  recipe.model.vocab_size = 8192;
  recipe.model.hidden_size = 512;
  recipe.model.num_hidden_layers = 8;
  recipe.model.num_attention_heads = recipe.model.num_key_value_heads = 8;
  recipe.model.head_dim = 64;
  recipe.model.moe.num_experts = 16;
  recipe.model.moe.num_experts_per_tok = 2;
  recipe.model.moe.moe_intermediate_size = 512;
  recipe.data.sequence_length = 512;
  recipe.data.train = {{.path = "random tokens", .domain = "random"}};
  recipe.training.global_batch_size = recipe.training.micro_batch_size = 4;
  return recipe;
}

Batch bench_batch(const Recipe& recipe, std::int64_t step, std::int64_t first, std::int64_t count) {
  const std::int64_t length = recipe.data.sequence_length;
  Batch batch{.sequences = count, .length = length};
  const RandomKey key = RandomKey(recipe.training.seed).with("bench").with(static_cast<std::uint64_t>(step));
  for (std::int64_t s = first; s < first + count; ++s) {
    // vocabulary^uniform has a density that falls with 1 / id, as Zipf's law wants.
    const auto draw = [&](std::int64_t column) {
      const double uniform = key.uniform(static_cast<std::uint64_t>(s * (length + 1) + column));
      const double id = std::pow(static_cast<double>(recipe.model.vocab_size), uniform) - 1;
      return static_cast<std::int32_t>(
          std::clamp<double>(id, 0, static_cast<double>(recipe.model.vocab_size - 1)));
    };
    for (std::int64_t i = 0; i < length; ++i) {
      batch.tokens.push_back(draw(i));
      batch.targets.push_back(draw(i + 1));
      batch.document_start.push_back(0);
    }
    batch.domain.push_back(0);
  }
  return batch;
}

Trainer::BatchSource bench_batches(const Recipe& recipe) {
  return [recipe](std::int64_t step, std::int64_t first, std::int64_t count) {
    return bench_batch(recipe, step, first, count);
  };
}

namespace {

double planned_bytes(const Bench& bench) {
  return plan_memory(bench.recipe, bench.mesh.world().size()).total();
}

/// The most that the process has ever held in memory, in bytes.
double process_peak() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * static_cast<double>(usage.ru_maxrss);
}

struct TimedTrainer {
  Trainer trainer;
  std::vector<double> rates{};       // tokens per second of each step
  std::vector<double> violations{};  // the busiest expert's tokens over the even share, less 1
  std::vector<double> processor{};   // its seconds by processor_seconds()

  explicit TimedTrainer(const Bench& bench, const RouterMaker& router = make_router)
      : trainer(bench.recipe, bench.mesh, bench_batches(bench.recipe), bench.device, router) {}
  void step(Communicator& world) {
    world.barrier();
    StepResult result;
    double seconds = 0;
    processor.push_back(processor_seconds([&] { seconds = seconds_of([&] { result = trainer.step(); }); }));
    rates.push_back(static_cast<double>(result.tokens) / seconds);
    violations.push_back(result.balance.max_load_violation);
  }
};

/// The traffic of a step of a recipe with one balance term.
TrafficTable traffic_of_step(const Bench& bench, const BalanceRecipe& term) {
  Recipe recipe = bench.recipe;
  recipe.model.moe.balance = {term};
  Trainer trainer(recipe, bench.mesh, bench_batches(recipe), bench.device);
  trainer.step();
  const TrafficTable before = bench.mesh.world().traffic();
  trainer.step();
  return bench.mesh.world().traffic().since(before);
}

/// The extra cost of the mean over the global batch beside the mean over each micro-batch.
void compare_balance_scopes(Bench& bench) {
  const ModelRecipe& model = bench.recipe.model;
  const TrafficTable global = traffic_of_step(
      bench, {.scope = BalanceScope::global_batch, .estimator = Estimator::warm, .coefficient = 0.01});
  const TrafficTable micro =
      traffic_of_step(bench, {.scope = BalanceScope::micro_batch, .coefficient = 0.01});
  // Of statistics alone: with other losses other tokens go to other experts, soon in other numbers.
  const Traffic &more = global[Purpose::statistics], &less = micro[Purpose::statistics];
  const auto calls = static_cast<double>(more.calls - less.calls);
  const auto bytes = static_cast<double>(more.bytes - less.bytes);
  const auto micro_steps =
      static_cast<double>(plan_layout(bench.recipe, bench.mesh.world().size()).micro_steps);
  bench.figures.push_back({.subject = "train",
                           .name = "global_batch balance, more calls a micro-step",
                           .unit = "calls",
                           .values = {calls / micro_steps},
                           .limit = "one call",
                           .limits = {1},
                           .better = Better::lower});
  bench.figures.push_back(
      {.subject = "train",
       .name = "global_batch balance, more bytes a micro-step",
       .unit = "B",
       .values = {bytes / micro_steps},
       .limit = "8 bytes a layer and expert",
       .limits = {8.0 * static_cast<double>(count_moe_layers(model) * model.moe.num_experts)},
       .better = Better::lower});
}

}  // namespace

void bench_training(Bench& bench) {
  Communicator& world = bench.mesh.world();
  const auto live = static_cast<double>(bench.device.memory_use().live);
  bench.device.reset_peak();
  std::unique_ptr<TimedTrainer> real;
  world.barrier();
  const double start = seconds_of([&] { real = std::make_unique<TimedTrainer>(bench); });
  real->step(world);  // memory is taken and caches are warm after the first
  const double first_rate = real->rates.back();
  real->step(world);
  const MemoryUse use = bench.device.memory_use();
  const double peak = static_cast<double>(use.peak) - live, of_process = process_peak();
  const double first_violation = real->violations.front();
  for (std::int64_t i = 0; i < bench.settle; ++i) real->step(world);
  real->rates.clear();
  real->violations.clear();

  TimedTrainer forced(bench, [](ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
                                const MethodStates& states) {
    return std::make_unique<RoundRobinRouter>(make_router(parameters, name, model, states),
                                              model.moe.num_experts);
  });
  forced.step(world);
  forced.rates.clear();
  forced.processor.clear();
  const DType dtype = dtype_of_precision(bench.recipe.training.precision);
  const Products products(product_shapes(bench.recipe), dtype, bench.device);
  std::vector<double> limits, flops;
  const double per_token = training_flops_per_token(bench.recipe.model, bench.recipe.data.sequence_length);
  for (std::int64_t i = 0; i < bench.steps; ++i) {
    world.barrier();
    const std::vector<double> rates = products.measure(0.1);
    if (dtype == DType::float32) bench.best.note(products.shapes(), rates);
    limits.push_back(sum_over_ranks(world, *std::max_element(rates.begin(), rates.end())));
    real->step(world);
    flops.push_back(real->rates.back() * per_token);
    forced.step(world);
  }
  const auto add = [&bench](Figure figure) {
    figure.subject = "train";
    bench.figures.push_back(std::move(figure));
  };
  const std::string precision = word_of(bench.recipe.training.precision);
  add({.name = "model flops",
       .unit = "flop/s",
       .values = flops,
       .limit = "the best " + precision + " product",
       .limits = limits});
  add({.name = "tokens",
       .unit = "tokens/s",
       .values = real->rates,
       .limit = "tokens with forced balance",
       .limits = forced.rates});
  add({.name = "tokens with forced balance", .unit = "tokens/s", .values = forced.rates});
  add({.name = "load violation",
       .unit = "",
       .values = real->violations,
       .limit = "that of the first step",
       .limits = std::vector<double>(real->violations.size(), first_violation),
       .better = Better::lower});
  add({.name = "processor time of a step with forced balance",
       .unit = "s",
       .values = forced.processor,
       .better = Better::lower});
  const StepClock::Parts parts = real->trainer.clock().typical();
  for (const Activity part : {Activity::forward, Activity::backward, Activity::optimizer})
    add({.name = join_text("computing in ", name_of(part)),
         .unit = "s",
         .values = {parts[static_cast<std::size_t>(part)]},
         .better = Better::lower});
  const double tokens = static_cast<double>(plan_layout(bench.recipe, world.size()).tokens_per_step);
  add({.name = "start: drawing weights, taking memory",
       .unit = "s",
       .values = {start},
       .better = Better::lower});
  add({.name = "first step",
       .unit = "s",
       .values = {tokens / first_rate},
       .limit = "a usual step",
       .limits = {tokens / median(real->rates)},
       .better = Better::lower});
  add({.name = "peak memory of tensors",
       .unit = "B",
       .values = {peak},
       .limit = "the plan of `conclave validate`",
       .limits = {planned_bytes(bench)},
       .better = Better::lower});
  for (const MemoryPurpose purpose : {MemoryPurpose::parameters, MemoryPurpose::gradients,
                                      MemoryPurpose::optimizer, MemoryPurpose::activations})
    add({.name = join_text("memory of ", name_of(purpose), ", at its most"),
         .unit = "B",
         .values = {static_cast<double>(use[purpose].peak)},
         .better = Better::lower});
  add({.name = "peak memory of the process",
       .unit = "B",
       .values = {of_process},
       .limit = "the plan of `conclave validate`",
       .limits = {planned_bytes(bench)},
       .better = Better::lower});
  real.reset();
  if (world.size() > 1) compare_balance_scopes(bench);
}

}  // namespace conclave
