#include "launch/commands/bench.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "framework/base/random.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/parse.h"
#include "framework/recipe/validate.h"
#include "launch/command_line.h"
#include "launch/job.h"
#include "launch/trainer.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

struct ProductShape {
  const char* use;
  std::int64_t m, n, k;
};

/// What a transformer of the benchmark's size multiplies, and one large square for the machine's own sake.
constexpr ProductShape product_shapes[] = {{"square", 1536, 1536, 1536},
                                           {"attention projection", 2048, 512, 512},
                                           {"LM head chunk", 512, 8192, 512},
                                           {"expert", 256, 512, 512}};

class ProductBench {
 public:
  explicit ProductBench(const ProductShape& shape)
      : shape_(shape),
        x_(filled({shape.m, shape.k})),
        weight_(filled({shape.n, shape.k})),
        y_(Tensor::empty({shape.m, shape.n}, DType::float32)) {}

  /// The best rate of a few calls, in floating-point operations per second.
  double measure(double seconds) const {
    const double operations = 2.0 * static_cast<double>(shape_.m * shape_.n * shape_.k);
    double best = 0;
    const auto begin = std::chrono::steady_clock::now();
    do {
      const double once = seconds_of(
          [&] { kernels_of(x_).gemm(x_, Transpose::no, weight_, Transpose::yes, y_, Write::overwrite); });
      best = std::max(best, operations / once);
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds);
    return best;
  }

 private:
  static Tensor filled(Shape shape) {
    std::vector<float> values(static_cast<std::size_t>(shape.elements()));
    const RandomKey key(1);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(key.uniform(i) - 0.5);
    return Tensor::from(values, shape);
  }
  ProductShape shape_;
  Tensor x_, weight_, y_;
};

/// What `conclave bench` trains when no recipe is given: the model of examples/benchmark.yaml.
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

/// Uniformly random tokens, one document per sequence: the cost of a step does not depend on the text.
Batch random_batch(const Recipe& recipe, std::int64_t step, std::int64_t first, std::int64_t count) {
  const std::int64_t length = recipe.data.sequence_length;
  Batch batch{.sequences = count,
              .length = length,
              .tokens = {},
              .targets = {},
              .document_start = {},
              .domain = {},
              .drawn = {}};
  const RandomKey key = RandomKey(recipe.training.seed).with("bench").with(static_cast<std::uint64_t>(step));
  for (std::int64_t s = first; s < first + count; ++s) {
    for (std::int64_t i = 0; i < length; ++i) {
      const auto draw = [&](std::int64_t column) {
        return static_cast<std::int32_t>(key.below(static_cast<std::uint64_t>(s * (length + 1) + column),
                                                   static_cast<std::uint64_t>(recipe.model.vocab_size)));
      };
      batch.tokens.push_back(draw(i));
      batch.targets.push_back(draw(i + 1));
      batch.document_start.push_back(0);
    }
    batch.domain.push_back(0);
  }
  return batch;
}

/// Steps and matrix products in turn, so that both see the same moods of a shared machine.
Json bench_training(const Recipe& recipe, const std::shared_ptr<Communicator>& world, std::int64_t steps,
                    std::vector<ProductBench>& products, std::vector<double>& best) {
  Mesh mesh(world, {});
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    return random_batch(recipe, step, first, count);
  });
  trainer.step();  // memory is taken and caches are warm after the first
  std::vector<double> rates, fractions;
  const double flops = training_flops_per_token(recipe.model, recipe.data.sequence_length);
  for (std::int64_t i = 0; i < steps; ++i) {
    double peak = 0;
    for (std::size_t p = 0; p < products.size(); ++p) {
      const double rate = products[p].measure(0.1);
      best[p] = std::max(best[p], rate);
      peak = std::max(peak, rate);
    }
    StepResult result;
    const double seconds = seconds_of([&] { result = trainer.step(); });
    rates.push_back(static_cast<double>(result.tokens) / seconds);
    fractions.push_back(rates.back() * flops / (peak * world->size()));
  }
  const MemoryUse memory = cpu_device().memory_use();
  return {{"recipe", recipe.name},
          {"ranks", world->size()},
          {"steps", steps},
          {"tokens_per_second", median(rates)},
          {"tokens_per_second_min", *std::min_element(rates.begin(), rates.end())},
          {"tokens_per_second_max", *std::max_element(rates.begin(), rates.end())},
          {"model_flops_per_token", flops},
          {"model_flops_per_second", median(rates) * flops},
          {"fraction_of_matmul_rate", median(fractions)},
          {"fraction_min", *std::min_element(fractions.begin(), fractions.end())},
          {"fraction_max", *std::max_element(fractions.begin(), fractions.end())},
          {"peak_memory_bytes", memory.peak}};
}

void print(const Json& report) {
  std::printf("Matrix products in fp32 (oneDNN), %d threads\n", report["threads"].get<int>());
  for (const auto& row : report["matmul"])
    std::printf("  %-22s %5lld x %5lld x %5lld  %8.1f GF/s\n", row["use"].get<std::string>().c_str(),
                row["m"].get<long long>(), row["n"].get<long long>(), row["k"].get<long long>(),
                row["flops_per_second"].get<double>() / 1e9);
  std::printf("  best %46s %8.1f GF/s\n", "", report["matmul_fp32_flops_per_second"].get<double>() / 1e9);
  if (!report.contains("training")) return;
  const Json& training = report["training"];
  std::printf(
      "Training of %s on %d rank(s), %lld steps between matrix products\n"
      "  %.0f tokens/s (%.0f to %.0f), %.1f GF/s of the model, peak memory %.2f GB\n"
      "  %.3f of the matrix-product rate measured in the same moments (%.3f to %.3f)\n",
      training["recipe"].get<std::string>().c_str(), training["ranks"].get<int>(),
      training["steps"].get<long long>(), training["tokens_per_second"].get<double>(),
      training["tokens_per_second_min"].get<double>(), training["tokens_per_second_max"].get<double>(),
      training["model_flops_per_second"].get<double>() / 1e9,
      training["peak_memory_bytes"].get<double>() / 1e9, training["fraction_of_matmul_rate"].get<double>(),
      training["fraction_min"].get<double>(), training["fraction_max"].get<double>());
}

}  // namespace

int run_bench(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "bench",
       .positionals = "[RECIPE.yaml] [key.path=value ...]",
       .summary = "Measures this machine's matrix-product rate, and the share of it that training reaches.",
       .options = {{"steps", "N", "training steps to time (default 10); 0 measures the machine alone"},
                   {"json", "", "print one JSON object instead of tables"}},
       .more = "Training steps on random tokens alternate with matrix products; medians and the range are "
               "printed.\n"
               "Without a recipe the model of examples/benchmark.yaml is trained. No data and no output "
               "directory "
               "are\nneeded.\n\n"
               "Examples:\n"
               "  conclave bench\n"
               "  conclave bench examples/benchmark.yaml\n"
               "  conclave bench examples/benchmark.yaml --json model.hidden_size=256\n"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  const std::int64_t steps = options.whole_number("steps", 10, 0);
  check(options.positionals().size() <= 1, Fault::request, "bench: ", options.positionals().size(),
        " recipes came, expected one or none");
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    Recipe recipe = benchmark_recipe();
    const bool train = steps > 0;
    agree(*world, [&] {
      if (options.positionals().empty()) {
        recipe.training.global_batch_size *= world->size();  // as much work for each rank
        for (const std::string& change : options.overrides()) apply_override(recipe, change);
      } else {
        recipe = load_recipe(options.positionals()[0], options.overrides());
      }
      validate_recipe(recipe, world->size());
    });
    Json report;
    report["threads"] = choose_threads(*world, recipe.training.threads);
    std::vector<ProductBench> products(std::begin(product_shapes), std::end(product_shapes));
    std::vector<double> best(products.size());
    for (std::size_t p = 0; p < products.size(); ++p) best[p] = products[p].measure(0.3);
    Json training;
    if (train) training = bench_training(recipe, world, steps, products, best);
    for (std::size_t p = 0; p < products.size(); ++p) {
      const ProductShape& shape = product_shapes[p];
      report["matmul"].push_back({{"use", shape.use},
                                  {"m", shape.m},
                                  {"n", shape.n},
                                  {"k", shape.k},
                                  {"flops_per_second", best[p]}});
    }
    report["matmul_fp32_flops_per_second"] = *std::max_element(best.begin(), best.end());
    if (train) report["training"] = training;
    if (world->rank() != 0) return 0;
    if (options.has("json"))
      std::cout << report.dump(2) << "\n";
    else
      print(report);
    return 0;
  });
}

}  // namespace conclave
