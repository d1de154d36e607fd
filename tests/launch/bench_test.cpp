// The measures of `conclave bench`, at small size: every subject gives figures that make sense, as JSON that
// can be read back; ratios, model flops and forced balance are what they are said to be. No speed is tested.
#include "launch/tools/bench/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "launch/tools/bench/machine_probe.h"
#include "launch/tools/bench/round_robin_router.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_text.h"
#include "parallel/agreement.h"
#include "tests/launch/synthetic.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using Json = nlohmann::json;

Recipe small_recipe() {
  Recipe recipe = test::tiny_recipe();
  recipe.training.precision = NumberFormat::fp32;
  recipe.model.moe.balance = {
      {.scope = BalanceScope::global_batch, .estimator = Estimator::warm, .coefficient = 0.01}};
  recipe.parallel.expert = test::mpi_world()->size();
  return recipe;
}

/// A directory of its own, by a name that all ranks share.
std::filesystem::path scratch() {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() /
      broadcast_text(*test::mpi_world(), join_text("conclave-bench-test-", ::getpid()), 0);
  agree(*test::mpi_world(), [&] { std::filesystem::create_directories(path); });
  return path;
}

class Benches : public testing::Test {
 protected:
  Benches() : recipe_(small_recipe()), mesh_(test::mpi_world(), {.expert = recipe_.parallel.expert}) {}
  ~Benches() override {
    test::mpi_world()->barrier();
    std::error_code ignored;
    if (test::mpi_world()->rank() == 0) std::filesystem::remove_all(bench_.directory, ignored);
  }

  const Figure& figure(const std::string& name) const {
    for (const Figure& one : bench_.figures)
      if (one.name == name) return one;
    fail(Fault::internal, "no figure is called ", name);
  }

  /// All figures are numbers above zero, with as many repeats, and come back from JSON.
  void expect_sane(const std::string& subject) const {
    std::set<std::string> names;
    for (const Figure& one : bench_.figures) {
      SCOPED_TRACE(one.name);
      EXPECT_EQ(one.subject, subject);
      EXPECT_TRUE(names.insert(one.name).second) << "two figures of one name";
      const Json json = Json::parse(to_json(one).dump());
      EXPECT_EQ(json["repeats"], one.values.size());
      for (const char* key : {"value", "min", "max"}) {
        EXPECT_GT(json[key].get<double>(), 0) << key;
        EXPECT_TRUE(std::isfinite(json[key].get<double>())) << key;
      }
      EXPECT_EQ(json.contains("ratio"), !one.limits.empty());
      EXPECT_EQ(one.limit.empty(), one.limits.empty());
      if (one.limits.empty()) continue;
      for (const char* key : {"ratio", "ratio_min", "ratio_max"}) {
        EXPECT_GT(json[key].get<double>(), 0) << key;
        EXPECT_TRUE(std::isfinite(json[key].get<double>())) << key;
      }
      EXPECT_LE(json["ratio_min"].get<double>(), json["ratio"].get<double>());
      EXPECT_LE(json["ratio"].get<double>(), json["ratio_max"].get<double>());
    }
  }

  Recipe recipe_;
  Mesh mesh_;
  Bench bench_{.recipe = recipe_,
               .mesh = mesh_,
               .device = cpu_device(),
               .repeats = 2,
               .steps = 2,
               .directory = scratch()};
};

TEST(Figures, RatiosAreTakenRepeatByRepeat) {
  const Figure figure{.subject = "s",
                      .name = "n",
                      .unit = "s",
                      .values = {1, 40, 6},
                      .limit = "l",
                      .limits = {2, 10, 1},
                      .better = Better::lower};
  const Json json = to_json(figure);
  EXPECT_EQ(json["value"], 6.0);
  EXPECT_EQ(json["spread"], 39.0 / 6);
  EXPECT_EQ(json["limit"]["value"], 2.0);
  EXPECT_EQ(json["ratio"], 4.0);  // of 0.5, 4 and 6; that of the medians would be 3
  EXPECT_EQ(json["ratio_max"], 6.0);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
  EXPECT_NE(to_line(figure).find("4.000 (0.500 to 6.000) of l"), std::string::npos) << to_line(figure);
  const Figure one_limit{
      .subject = "s", .name = "n", .unit = "B", .values = {1, 2}, .limit = "l", .limits = {4}};
  EXPECT_EQ(ratios(one_limit), (std::vector<double>{0.25, 0.5}));
  const Figure uneven{
      .subject = "s", .name = "n", .unit = "B", .values = {1, 2, 3}, .limit = "l", .limits = {4, 4}};
  EXPECT_THROW(ratios(uneven), Error);
}

TEST(BenchmarkRecipe, IsTheOneAmongTheExamples) {
  const Recipe built_in = benchmark_recipe(),
               file = load_recipe(CONCLAVE_SOURCE_DIRECTORY "/examples/benchmark.yaml");
  EXPECT_EQ(built_in.model, file.model);
  EXPECT_EQ(built_in.data.sequence_length, file.data.sequence_length);
  EXPECT_EQ(built_in.training.global_batch_size, file.training.global_batch_size);
  EXPECT_EQ(built_in.training.micro_batch_size, file.training.micro_batch_size);
}

TEST(Figures, ModelFlopsAreCountedByHand) {
  Recipe recipe = test::tiny_recipe();
  recipe.model.moe.first_k_dense_replace = 1;
  // One dense and one block with experts; hidden 32, 4 heads and 2 key-value heads of 8, top 2 of 8 experts
  // of 16 and a shared one, dense 48, vocabulary 61, sequences of 12. Multiplications and additions, forward;
  // backward twice as many.
  const double projections = 2 * (32 * 32 + 32 * 16 + 32 * 16 + 32 * 32);
  const double dense = 2 * 3 * 32 * 48, experts = 2 * (2 + 1) * 3 * 32 * 16, router = 2 * 32 * 8,
               head = 2 * 32 * 61;
  const double attention = 2 * 2 * 6 * 32;  // scores and values over half of 12 tokens
  EXPECT_EQ(training_flops_per_token(recipe.model, 12),
            3 * (2 * (projections + attention) + dense + experts + router + head));
}

TEST_F(Benches, Training) {
  bench_training(bench_);
  expect_sane("train");
  const Figure &flops = figure("model flops"), &tokens = figure("tokens");
  ASSERT_EQ(flops.values.size(), 2u);
  const double per_token = training_flops_per_token(recipe_.model, recipe_.data.sequence_length);
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_NEAR(flops.values[i] / tokens.values[i], per_token, 1e-6 * per_token);
  EXPECT_GT(bench_.best.best(), 0);
  EXPECT_NEAR(ratios(figure("peak memory of tensors"))[0], 1, 0.1);
  if (test::mpi_world()->size() == 1) return;
  // Never more than one call a micro-step, of a number for each layer and expert.
  EXPECT_LE(ratios(figure("global_batch balance, more calls a micro-step"))[0], 1);
  EXPECT_LE(ratios(figure("global_batch balance, more bytes a micro-step"))[0], 1);
}

TEST_F(Benches, Layers) {
  bench_layers(bench_);
  expect_sane("layers");
  EXPECT_EQ(bench_.figures.size(), 3u);
}

TEST_F(Benches, Generation) {
  bench_.recipe.data.sequence_length = 64;
  bench_generation(bench_);
  expect_sane("generate");
  EXPECT_EQ(bench_.figures.size(), 8u);
  // Without room for the texts, or with pools, which go without a cache, there is nothing to measure.
  for (int which = 0; which < 2; ++which) {
    Bench none{.recipe = recipe_, .mesh = mesh_, .device = cpu_device(), .repeats = 1};
    if (which == 1) none.recipe.data.sequence_length = 64;
    if (which == 1) none.recipe.model.moe.router.pool = {.minimum = 2, .maximum = 6, .evaluation = 3};
    bench_generation(none);
    EXPECT_TRUE(none.figures.empty());
  }
}

TEST_F(Benches, Products) {
  bench_products(bench_);
  expect_sane("products");
  double best = 0;
  for (const Figure& one : bench_.figures)
    if (one.name.starts_with("fp32")) {
      for (const double ratio : ratios(one)) EXPECT_LE(ratio, 1);
      best = std::max(best, *std::max_element(one.values.begin(), one.values.end()));
    }
  EXPECT_EQ(bench_.best.best(), best);
}

TEST_F(Benches, Kernels) {
  bench_kernels(bench_);
  expect_sane("kernels");
  // Backward of attention makes five products where forward makes two, and moves more bytes.
  const Figure &forward = figure("attention"), &backward = figure("attention_backward");
  for (std::size_t i = 0; i < 2; ++i) EXPECT_GT(backward.limits[i], forward.limits[i]);
  EXPECT_EQ(bench_.figures.size(), 16u);
}

/// A device of its own: every subject but the fp64 products measures it as it does the CPU.
TEST(BenchOnADevice, AllSubjects) {
  Recipe recipe = small_recipe();
  recipe.training.device = DeviceKind::emulated;
  Mesh mesh(test::mpi_world(), {.expert = recipe.parallel.expert});
  Bench bench{.recipe = recipe,
              .mesh = mesh,
              .device = emulated_device(),
              .repeats = 1,
              .steps = 1,
              .directory = "."};
  for (const auto run : {bench_training, bench_layers, bench_products, bench_kernels, bench_memory}) {
    const std::size_t before = bench.figures.size();
    run(bench);
    EXPECT_GT(bench.figures.size(), before);
  }
  for (const Figure& one : bench.figures) {
    EXPECT_FALSE(one.name.starts_with("fp64")) << "a device without fp64 was measured";
    for (const double value : one.values) EXPECT_GT(value, 0) << one.name;
  }
  EXPECT_EQ(emulated_device().memory_use()[MemoryPurpose::parameters].live, 0u) << "memory was left behind";
}

TEST_F(Benches, Memory) {
  bench_memory(bench_);
  expect_sane("memory");
  EXPECT_EQ(bench_.figures.size(), 6u);
}

TEST_F(Benches, Collectives) {
  bench_collectives(bench_);
  expect_sane("collectives");
  EXPECT_EQ(bench_.figures.size(), test::mpi_world()->size() == 1 ? 0u : 12u);
}

TEST(MachineProbe, FitsTwoRates) {
  std::vector<WorkSample> samples;
  for (const double x : {1.0, 5.0, 20.0})
    for (const double y : {1.0, 3.0}) samples.push_back({x, y, x / 4 + y / 0.5});
  const FittedRates rates = fit_rates(samples);
  EXPECT_NEAR(rates.x, 4, 1e-9);
  EXPECT_NEAR(rates.y, 0.5, 1e-9);
  // A figure that explains nothing is free, and no rate is ever below zero.
  for (WorkSample& sample : samples) sample.seconds = sample.x / 4 - 0.01 * sample.y;
  EXPECT_GT(fit_rates(samples).y, 1e12);
}

TEST(MachineProbe, DescribesThisMachine) {
  const std::shared_ptr<Communicator> world = test::mpi_world();
  if (::sysconf(_SC_NPROCESSORS_ONLN) < world->size()) GTEST_SKIP() << "a processor for each rank is needed";
  const MachineModel machine = measure_machine(*world, 1);
  EXPECT_EQ(machine.processors_per_node, world->size());
  for (const double rate :
       {machine.products.operations_per_second, machine.grouped_products.operations_per_second,
        machine.attention_operations_per_second, machine.scores_per_second, machine.pass_bytes_per_second,
        machine.exponentials_per_second, machine.optimizer_bytes_per_second, machine.call_seconds})
    EXPECT_TRUE(rate > 0 && std::isfinite(rate)) << to_yaml(machine);
  EXPECT_EQ(machine.within_node.bytes_per_second > 0, world->size() > 1);
  EXPECT_EQ(to_yaml(parse_machine(to_yaml(machine), "itself")), to_yaml(machine));
  // All ranks have the same.
  EXPECT_EQ(broadcast_text(*world, to_yaml(machine), 0), to_yaml(machine));
}

TEST_F(Benches, CheckpointsAreGoneAfterwards) {
  bench_checkpoint(bench_);
  expect_sane("checkpoint");
  EXPECT_EQ(bench_.figures.size(), 2u);
  test::mpi_world()->barrier();
  EXPECT_TRUE(std::filesystem::is_empty(bench_.directory));
}

TEST_F(Benches, BatchesAreTheSameWhereverTheyAreCut) {
  const Batch whole = bench_batch(recipe_, 3, 0, 4), half = bench_batch(recipe_, 3, 2, 2);
  EXPECT_TRUE(std::equal(half.tokens.begin(), half.tokens.end(),
                         whole.tokens.begin() + 2 * recipe_.data.sequence_length));
  EXPECT_EQ(whole.tokens[1], whole.targets[0]);
  for (const std::int32_t token : whole.tokens) EXPECT_TRUE(token >= 0 && token < recipe_.model.vocab_size);
  EXPECT_NE(whole.tokens, bench_batch(recipe_, 4, 0, 4).tokens);
}

TEST_F(Benches, TheRoundRobinRouterOverrulesTheChoiceAlone) {
  const ModelRecipe& model = recipe_.model;
  ParameterSet parameters;
  const std::unique_ptr<Router> asked = make_router(parameters, "gate", model);
  ParameterSet again;
  const RoundRobinRouter forced(make_router(again, "gate", model), model.moe.num_experts);
  for (ParameterSet* set : {&parameters, &again}) set->materialize(DType::float64, 5);
  const ModelInput input = to_device(bench_batch(recipe_, 0, 0, 4));
  const Variable x{random_tensor({input.tokens.elements(), model.hidden_size}, DType::float64), {}};
  Tape tape(Tape::Mode::forward_only);
  const auto alone = self_communicator();
  const RouterInput seen{x, input, *alone};
  const Routing free = asked->route(tape, seen), even = forced.route(tape, seen);
  EXPECT_EQ(free.weights.value.to_host<double>(), even.weights.value.to_host<double>());
  EXPECT_EQ(free.statistics.counts.to_host<std::int64_t>(), even.statistics.counts.to_host<std::int64_t>());
  std::vector<std::int64_t> rows(static_cast<std::size_t>(model.moe.num_experts));
  for (const std::int32_t expert : even.experts.to_host<std::int32_t>())
    ++rows[static_cast<std::size_t>(expert)];
  EXPECT_EQ(rows, std::vector<std::int64_t>(rows.size(), 4 * 12 * 2 / 8));
  EXPECT_NE(free.experts.to_host<std::int32_t>(), even.experts.to_host<std::int32_t>());
}

}  // namespace
}  // namespace conclave
