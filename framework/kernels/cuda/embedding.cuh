// Embedding, its gradient without atomics, and rotary positions.
#pragma once

#include <limits>

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/rope_frequencies.h"

namespace conclave::DIALECT {

/// A block copies a row. An id outside the vocabulary gives NaN: device code cannot raise an error, and a
/// failed run must show.
template <class T>
KERNEL embedding_kernel(const std::int32_t* tokens, const T* weight, std::int64_t vocabulary,
                        std::int64_t hidden, T* y) {
  const std::int64_t t = block_index(), id = tokens[t];
  const bool known = id >= 0 && id < vocabulary;
  const float other = id == -1 ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  for (std::int64_t i = thread_index(); i < hidden; i += block_size())
    store(y + t * hidden + i, known ? load(weight + id * hidden + i) : other);
}

/// dweight[tokens[t]] += dy[t]: the block of a token's first occurrence adds up all of them, in their order.
template <class T, class U>
KERNEL embedding_backward_kernel(const std::int32_t* tokens, std::int64_t count, std::int64_t vocabulary,
                                 const T* dy, std::int64_t hidden, U* dweight) {
  SHARED(std::int32_t, ids, block_threads);
  const std::int64_t t = block_index(), id = tokens[t];
  if (id < 0 || id >= vocabulary) return;
  std::int32_t seen = 0;
  for (std::int64_t j = thread_index(); j < t; j += block_size()) seen |= tokens[j] == id ? 1 : 0;
  if (block_reduce(seen, Maximum{}) != 0) return;
  for (std::int64_t first = 0; first < hidden; first += block_size()) {
    const std::int64_t i = first + thread_index();
    float sum = i < hidden ? load(dweight + id * hidden + i) : 0;
    for (std::int64_t begin = t; begin < count; begin += block_size()) {
      sync_block();
      ids[thread_index()] = begin + thread_index() < count ? tokens[begin + thread_index()] : -1;
      sync_block();
      for (int j = 0; j < block_size(); ++j)
        if (ids[j] == id && i < hidden) sum += load(dy + (begin + j) * hidden + i);
    }
    if (i < hidden) store(dweight + id * hidden + i, sum);
  }
}

/// x, y [tokens, heads, width]; a thread turns one pair of every head, or hands one on that lies behind
/// rotary_width. sign: 1 forward, -1 back.
template <class T>
KERNEL rope_kernel(const T* x, const std::int32_t* positions, RopeFrequencies frequencies,
                   std::int64_t rotary_width, float sign, std::int64_t tokens, std::int64_t heads,
                   std::int64_t width, T* y) {
  const std::int64_t half = rotary_width / 2, t = first_item() / (width / 2), i = first_item() % (width / 2);
  if (t >= tokens) return;
  if (i >= half) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t one = (t * heads + h) * width + 2 * i;
      y[one] = x[one];
      y[one + 1] = x[one + 1];
    }
    return;
  }
  // Whole turns are taken off in float64: position * frequency in float32 loses digits at long contexts.
  const double turns = positions[t] * rope_frequency(frequencies, i, half) * 0.15915494309189535;  // / 2 pi
  float cosine, sine;
  cosine_sine_of_turns(static_cast<float>(turns - std::rint(turns)), cosine, sine);
  sine *= sign;
  for (std::int64_t h = 0; h < heads; ++h) {
    const std::int64_t one = (t * heads + h) * width + i, two = one + half;
    const float a = load(x + one), b = load(x + two);
    store(y + one, a * cosine - b * sine);
    store(y + two, b * cosine + a * sine);
  }
}

}  // namespace conclave::DIALECT
