#include "launch/tools/bench/products.h"

#include <algorithm>
#include <chrono>

#include "framework/base/random.h"
#include "framework/kernels/kernels.h"
#include "launch/tools/bench/bench.h"

namespace conclave {

std::vector<ProductShape> product_shapes(const Recipe& recipe) {
  const ModelRecipe& model = recipe.model;
  const std::int64_t tokens = recipe.training.micro_batch_size * recipe.data.sequence_length;
  const std::int64_t rows = tokens * model.moe.num_experts_per_tok / model.moe.num_experts;
  return {{"square", 1536, 1536, 1536},
          {"attention projection", std::min<std::int64_t>(tokens, 4096),
           model.num_attention_heads * model.head_dim, model.hidden_size},
          {"LM head chunk", std::min<std::int64_t>(tokens, 512), model.vocab_size, model.hidden_size},
          {"expert", std::max<std::int64_t>(rows, 1), model.moe.moe_intermediate_size, model.hidden_size}};
}

void BestProducts::note(const std::vector<ProductShape>& new_shapes, const std::vector<double>& new_rates) {
  if (shapes.empty()) {
    shapes = new_shapes;
    rates = new_rates;
  }
  for (std::size_t i = 0; i < rates.size(); ++i) rates[i] = std::max(rates[i], new_rates[i]);
}

double BestProducts::best() const {
  return rates.empty() ? 0 : *std::max_element(rates.begin(), rates.end());
}

struct Products::Operands {
  Tensor x, weight, y;  // [m, k], [n, k], [m, n]
};

Products::Products(const std::vector<ProductShape>& shapes, DType dtype, Device& device) : shapes_(shapes) {
  for (const ProductShape& shape : shapes)
    operands_.push_back({random_tensor({shape.m, shape.k}, dtype, device),
                         random_tensor({shape.n, shape.k}, dtype, device),
                         Tensor::empty({shape.m, shape.n}, dtype, device)});
}

Products::~Products() = default;

std::vector<double> Products::measure(double seconds) const {
  std::vector<double> rates;
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    const Operands& of = operands_[i];
    const double operations = 2.0 * static_cast<double>(shapes_[i].m * shapes_[i].n * shapes_[i].k);
    double best = 0, spent = 0;
    do {
      Device& device = of.x.device();
      // The host waits once for several, where it waits at all.
      const int queued = device.kind() == DeviceKind::cuda ? 20 : 1;
      const double once = seconds_on(device, [&] {
        for (int call = 0; call < queued; ++call)
          kernels_of(of.x).gemm(of.x, Transpose::no, of.weight, Transpose::yes, of.y, Write::overwrite);
      });
      best = std::max(best, queued * operations / once);
      spent += once;
    } while (spent < seconds);
    rates.push_back(best);
  }
  return rates;
}

void bench_products(Bench& bench) {
  struct Kind {
    const char* name;
    Products products;
    std::vector<std::vector<double>> rates;  // [shapes, repeats]
  };
  const std::vector<ProductShape> shapes = product_shapes(bench.recipe);
  // Products in fp64 are loops of our own, made for tests, and on the CPU alone: a square of the usual size
  // would take a second.
  const std::vector<ProductShape> small{{"square", 384, 384, 384}};
  std::vector<Kind> kinds;
  kinds.push_back({"fp32", Products(shapes, DType::float32, bench.device), {}});
  kinds.push_back({"bf16", Products(shapes, DType::bfloat16, bench.device), {}});
  if (bench.device.kind() == DeviceKind::cpu)
    kinds.push_back({"fp64", Products(small, DType::float64, bench.device), {}});
  std::vector<double> limits;
  for (std::int64_t repeat = 0; repeat < bench.repeats; ++repeat)
    for (Kind& kind : kinds) {
      bench.mesh.world().barrier();
      const std::vector<double> rates = kind.products.measure(0.05);
      kind.rates.resize(rates.size());
      for (std::size_t i = 0; i < rates.size(); ++i) kind.rates[i].push_back(rates[i]);
      if (&kind != kinds.data()) continue;
      bench.best.note(shapes, rates);
      limits.push_back(*std::max_element(rates.begin(), rates.end()));
    }
  for (const Kind& kind : kinds)
    for (std::size_t i = 0; i < kind.rates.size(); ++i) {
      const ProductShape& shape = kind.products.shapes()[i];
      bench.figures.push_back(
          {.subject = "products",
           .name = join_text(kind.name, " ", shape.use, " ", shape.m, " x ", shape.n, " x ", shape.k),
           .unit = "flop/s",
           .values = kind.rates[i],
           .limit = "the best fp32 product",
           .limits = limits});
    }
}

Tensor random_tensor(Shape shape, DType dtype, Device& device) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  const RandomKey key(1);
#pragma omp parallel for
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(key.uniform(i) - 0.5);
  const Tensor drawn = Tensor::from(values, shape, device);
  if (dtype == DType::float32) return drawn;
  const Tensor converted = Tensor::empty(shape, dtype, device);
  kernels_of(drawn).convert(drawn, converted);
  return converted;
}

double sum_over_ranks(Communicator& world, double value) {
  const Tensor sum = Tensor::from(std::vector<double>{value}, {1});
  world.all_reduce(sum, ReduceOp::sum, Purpose::agreement);
  return sum.item();
}

}  // namespace conclave
