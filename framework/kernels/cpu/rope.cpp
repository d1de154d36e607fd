// Rotary positions (Su et al., RoFormer, arXiv 2104.09864): the pair (x_i, x_{i + half}) of a head is turned
// by the angle position * rope_frequency. Backward turns the gradient back by the same angle, which is
// Rotation::inverse.
#include "framework/kernels/rope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <mutex>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/storage.h"

namespace conclave {
namespace {

/// Cosine and sine of position * rope_frequency, both [positions, half].
template <class S>
struct RotaryTable {
  RopeFrequencies frequencies;
  std::int64_t half, positions;
  std::vector<S> cosine, sine;
};

/// The table of these angles for at least so many positions. The last one is kept: a step asks for the same
/// one many times, and making it takes longer than turning a micro-batch by it.
template <class S>
std::shared_ptr<const RotaryTable<S>> rotary_table(const RopeFrequencies& frequencies, std::int64_t half,
                                                   std::int64_t positions) {
  static std::mutex mutex;
  static std::shared_ptr<const RotaryTable<S>> kept;
  const std::lock_guard lock(mutex);
  if (kept && kept->frequencies == frequencies && kept->half == half && kept->positions >= positions)
    return kept;
  // A text that grows asks for one position more each time; twice as many seldom run out.
  positions = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(positions)));
  const auto numbers = static_cast<std::size_t>(positions * half);
  auto table = std::make_shared<RotaryTable<S>>(
      RotaryTable<S>{frequencies, half, positions, std::vector<S>(numbers), std::vector<S>(numbers)});
#pragma omp parallel for
  for (std::int64_t p = 0; p < positions; ++p)
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * rope_frequency(frequencies, i, half);
      table->cosine[static_cast<std::size_t>(p * half + i)] = static_cast<S>(std::cos(angle));
      table->sine[static_cast<std::size_t>(p * half + i)] = static_cast<S>(std::sin(angle));
    }
  return kept = std::move(table);
}

void rope(const Tensor& x, const Tensor& positions, const RopeFrequencies& frequencies,
          std::int64_t rotary_width, Rotation rotation, const Tensor& y) {
  const std::int64_t tokens = x.dim(0), heads = x.dim(1), width = x.dim(2), half = rotary_width / 2;
  check_rope(x, positions, rotary_width, y);
  const std::int32_t* position = positions.data<std::int32_t>();
  std::int32_t last = 0;
  for (std::int64_t t = 0; t < tokens; ++t) last = std::max(last, position[t]);
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    const auto table = rotary_table<S>(frequencies, half, last + 1);
    const S sign = rotation == Rotation::forward ? S(1) : S(-1);
    const T* px = x.data<T>();
    T* py = y.data<T>();
#pragma omp parallel for if (x.elements() > cpu::small)
    for (std::int64_t t = 0; t < tokens; ++t) {
      const S *c = table->cosine.data() + position[t] * half, *s = table->sine.data() + position[t] * half;
      for (std::int64_t h = 0; h < heads; ++h) {
        const T *first = px + (t * heads + h) * width, *second = first + half;
        T *out_first = py + (t * heads + h) * width, *out_second = out_first + half;
#pragma omp simd
        for (std::int64_t i = 0; i < half; ++i) {
          const S a = cpu::load(first + i), b = cpu::load(second + i), sine = sign * s[i];
          cpu::store(out_first + i, a * c[i] - b * sine);
          cpu::store(out_second + i, b * c[i] + a * sine);
        }
        std::copy(first + rotary_width, first + width, out_first + rotary_width);
      }
    }
  });
}

}  // namespace

void cpu::put_rope(Kernels& kernels) {
  kernels.family<RopeKernels>().rope = rope;
}

}  // namespace conclave
