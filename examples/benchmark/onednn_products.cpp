// y = x W^T in bfloat16 by oneDNN alone, each size made known to it before: what a program could reach that
// multiplies these sizes and no others.
//
//     onednn_products ROUNDS M N K [M N K]...
//
// prints one line of operations per second for each size: the best of ROUNDS, of weights as they lie and of
// weights laid out for the product beforehand, which costs oneDNN's user a pass over them.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

namespace {

using dnnl::memory;

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const memory::desc& x,
                                      const memory::desc& weight, const memory::desc& y) {
#if DNNL_VERSION_MAJOR == 2
  return {dnnl::matmul::desc(x, weight, y), engine};
#else
  return {engine, x, weight, y};
#endif
}

/// Numbers near 1 everywhere: pages that nobody has written would all be one page, which is always in the
/// cache.
void fill(const memory& numbers) {
  auto* bits = static_cast<std::uint16_t*>(numbers.get_data_handle());
  for (std::size_t i = 0; i < numbers.get_desc().get_size() / 2; ++i)
    bits[i] = static_cast<std::uint16_t>(0x3f00 + i * 37 % 256);
}

double rate(memory::dim m, memory::dim n, memory::dim k, bool laid_out) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  constexpr auto type = memory::data_type::bf16;
  const memory::desc x({m, k}, type, memory::dims{k, 1}), plain({k, n}, type, memory::dims{1, k}),
      y({m, n}, type, memory::dims{n, 1});
  const auto description =
      describe(engine, x, laid_out ? memory::desc({k, n}, type, memory::format_tag::any) : plain, y);
  const memory of_x(x, engine), of_weight(description.weights_desc(), engine), of_y(y, engine);
  for (const memory& numbers : {of_x, of_weight, of_y}) fill(numbers);
  dnnl::matmul product(description);
  double best = 0, spent = 0;
  while (spent < 0.1) {
    const auto begin = std::chrono::steady_clock::now();
    product.execute(stream, {{DNNL_ARG_SRC, of_x}, {DNNL_ARG_WEIGHTS, of_weight}, {DNNL_ARG_DST, of_y}});
    stream.wait();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, 2.0 * static_cast<double>(m * n * k) / seconds);
    spent += seconds;
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5 || argc % 3 != 2) {
    std::fprintf(stderr, "usage: onednn_products ROUNDS M N K [M N K]...\n");
    return 2;
  }
  for (int i = 2; i < argc; i += 3) {
    double plain = 0, laid_out = 0;
    for (int round = 0; round < std::atoi(argv[1]); ++round) {
      const auto size = [&](int of) { return static_cast<memory::dim>(std::atoll(argv[i + of])); };
      plain = std::max(plain, rate(size(0), size(1), size(2), false));
      laid_out = std::max(laid_out, rate(size(0), size(1), size(2), true));
    }
    std::printf("%.4g %.4g\n", plain, laid_out);
  }
}
