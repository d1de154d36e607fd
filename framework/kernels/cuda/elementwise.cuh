// Sums, SwiGLU, AdamW: each thread walks over elements, neighbours beside each other in memory.
#pragma once

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/scalar_math.h"

namespace conclave::DIALECT {

template <class T, class U>
KERNEL convert_kernel(const T* x, U* y, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) store(y + i, load(x + i));
}

template <class T, class U>
KERNEL add_scaled_kernel(const T* x, float factor, U* y, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride())
    store(y + i, load(y + i) + factor * load(x + i));
}

template <class T>
KERNEL add_kernel(const T* a, const T* b, T* sum, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride())
    store(sum + i, load(a + i) + load(b + i));
}

template <class T>
KERNEL swiglu_kernel(const T* gate, const T* up, T* y, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride())
    store(y + i, silu(load(gate + i)) * load(up + i));
}

template <class T>
KERNEL swiglu_backward_kernel(const T* gate, const T* up, const T* dy, T* dgate, T* dup, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) {
    const float g = load(gate + i), u = load(up + i), d = load(dy + i);
    const float s = sigmoid(g);
    store(dup + i, d * g * s);
    store(dgate + i, d * u * s * (1 + g * (1 - s)));  // silu'(g) = s (1 + g (1 - s))
  }
}

/// Squares are added over pieces of fixed size, the pieces in order afterwards: the grid does not matter.
constexpr std::int64_t squares_piece = 16 * 1024;

template <class T>
DEVICE double squares_of_block(const T* x, std::int64_t begin, std::int64_t end) {
  double sum = 0;
  for (std::int64_t i = begin + thread_index(); i < end; i += block_size()) {
    const double value = load(x + i);
    sum += value * value;
  }
  return block_reduce(sum, Sum{});
}

template <class T>
KERNEL sum_of_squares_kernel(const T* x, std::int64_t count, double* of_piece) {
  const std::int64_t begin = block_index() * squares_piece;
  const std::int64_t end = begin + squares_piece < count ? begin + squares_piece : count;
  const double sum = squares_of_block(x, begin, end);
  if (thread_index() == 0) of_piece[block_index()] = sum;
}

/// A block for each of Pieces.
KERNEL squares_of_pieces_kernel(const float* x, const std::int64_t* table, const double* settings,
                                double* of_piece) {
  const std::int64_t* piece = table + block_index() * 3;
  const double factor = settings[block_index() * 2];
  const double sum = factor == 0 ? 0 : factor * squares_of_block(x, piece[0], piece[0] + piece[2]);
  if (thread_index() == 0) of_piece[block_index()] = sum;
}

/// One block: the sum of values[0], values[stride] and so on, or += with add.
KERNEL sum_kernel(const double* values, std::int64_t count, std::int64_t stride, bool add, double* sum) {
  double own = 0;
  for (std::int64_t i = thread_index(); i < count; i += block_size()) own += values[i * stride];
  own = block_reduce(own, Sum{});
  if (thread_index() == 0) *sum = add ? *sum + own : own;
}

/// One block; few numbers, losses and statistics.
KERNEL weighted_sum_kernel(const double* x, const double* factors, std::int64_t count, double* sum) {
  double own = 0;
  for (std::int64_t i = thread_index(); i < count; i += block_size()) own += x[i] * factors[i];
  own = block_reduce(own, Sum{});
  if (thread_index() == 0) *sum = own;
}

KERNEL multiply_kernel(const double* x, const double* factor, double* y, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) y[i] = *factor * x[i];
}

KERNEL add_scaled_losses_kernel(const double* x, double factor, double* y, std::int64_t count) {
  for (std::int64_t i = first_item(); i < count; i += item_stride()) y[i] += factor * x[i];
}

struct AdamWNumbers {
  double learning_rate, correction1;
  float beta1, beta2, keep1, keep2, gradient_scale, epsilon, inverse_correction2;
};

/// A block for each of Pieces.
KERNEL adamw_kernel(AdamWNumbers n, const std::int64_t* table, const double* settings, const float* gradients,
                    float* values, float* moments1, float* moments2) {
  const std::int64_t* piece = table + block_index() * 3;
  const float* gradient = gradients + piece[0];
  float *value = values + piece[0], *moment1 = moments1 + piece[1], *moment2 = moments2 + piece[1];
  const double learning_rate = n.learning_rate * settings[block_index() * 2];
  const float shrink = static_cast<float>(1 - learning_rate * settings[block_index() * 2 + 1]);
  const float rate = static_cast<float>(learning_rate / n.correction1);
  for (std::int64_t i = thread_index(); i < piece[2]; i += block_size()) {
    const float g = gradient[i] * n.gradient_scale;
    const float m = n.beta1 * moment1[i] + n.keep1 * g;
    const float s = n.beta2 * moment2[i] + n.keep2 * g * g;
    moment1[i] = m;
    moment2[i] = s;
    value[i] = shrink * value[i] - rate * m / (std::sqrt(s * n.inverse_correction2) + n.epsilon);
  }
}

}  // namespace conclave::DIALECT
