// Memory bandwidth. Bytes are those that a loop names; a write to memory that is not in a cache reads it
// first, which is not counted, on either side.
#include <cstring>

#include "framework/kernels/kernels.h"
#include "launch/tools/bench/bench.h"

namespace conclave {
namespace {

constexpr std::int64_t elements = std::int64_t{1} << 24;  // 64 MiB an array: beyond most caches

void triad(const Tensor& a, const Tensor& b, const Tensor& c) {
  float* const to = a.data<float>();
  const float *x = b.data<float>(), *y = c.data<float>();
#pragma omp parallel for simd
  for (std::int64_t i = 0; i < elements; ++i) to[i] = x[i] + 3.0F * y[i];
}

void copy_plainly(const Tensor& from, const Tensor& to) {
  constexpr std::int64_t block = 1 << 16;
#pragma omp parallel for
  for (std::int64_t i = 0; i < elements; i += block)
    std::memcpy(to.data<float>() + i, from.data<float>() + i, block * sizeof(float));
}

}  // namespace

void bench_memory(Bench& bench) {
  Device& device = bench.device;
  const Tensor a = Tensor::zeros({elements}, DType::float32, device);
  const Tensor b = random_tensor({elements}, DType::float32, device), c = b.clone(), d = a.clone();
  const Tensor sum = Tensor::zeros({1}, DType::float64, device);
  const Kernels& kernels = kernels_of(a);
  const Pieces whole =
      Pieces::of({{.first = 0, .first_state = 0, .elements = elements, .weight_decay = 0.1}}, device);
  const AdamWStep step{.learning_rate = 1e-3,
                       .beta1 = 0.9,
                       .beta2 = 0.95,
                       .epsilon = 1e-8,
                       .correction1 = 0.1,
                       .correction2 = 0.05,
                       .gradient_scale = 1};
  struct Loop {
    const char* name;
    double arrays;  // read or written
    std::function<void()> run;
    std::vector<double> rates{};
  };
  const bool on_cpu = device.kind() == DeviceKind::cpu;
  std::vector<Loop> loops;
  if (on_cpu) {
    loops.push_back({"triad a = b + s c, plain loop", 3, [&] { triad(a, b, c); }});
    loops.push_back({"copy, memcpy on all threads", 2, [&] { copy_plainly(b, c); }});
  } else {
    loops.push_back({"copy of the device", 2, [&] { c.copy_from(b); }});
  }
  const std::vector<Loop> of_kernels{
      {"add, kernel", 3, [&] { kernels.add(b, c, a); }},
      {"add_scaled, kernel", 3, [&] { kernels.add_scaled(b, 0.5, a); }},
      {"sum_of_squares, kernel", 1, [&] { kernels.sum_of_squares(b, sum, Write::overwrite); }},
      {"AdamW, kernel", 7, [&] { kernels.adamw(step, whole, b, a, c, d); }}};
  loops.insert(loops.end(), of_kernels.begin(), of_kernels.end());
  c.copy_from(b);
  for (std::int64_t repeat = 0; repeat < bench.repeats; ++repeat)
    for (Loop& loop : loops) {
      bench.mesh.world().barrier();
      loop.rates.push_back(loop.arrays * static_cast<double>(a.bytes()) / seconds_on(device, loop.run));
    }
  for (const Loop& loop : loops)
    bench.figures.push_back({.subject = "memory",
                             .name = loop.name,
                             .unit = "B/s",
                             .values = loop.rates,
                             .limit = on_cpu ? "the triad" : "the copy",
                             .limits = loops.front().rates});
}

}  // namespace conclave
