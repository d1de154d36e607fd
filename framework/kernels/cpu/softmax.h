// The softmax of one token's router logits. -infinity gives exactly 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "framework/kernels/scalar_math.h"

namespace conclave {

/// softmax of values[0..count) into p; returns logsumexp(values).
template <class T>
inline T softmax(const T* values, std::int64_t count, T* p) {
  T largest = values[0];
  for (std::int64_t i = 1; i < count; ++i) largest = std::max(largest, values[i]);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    // The exponential of float32 ends above zero.
    p[i] = values[i] == -std::numeric_limits<T>::infinity() ? T(0) : exponential(values[i] - largest);
    sum += p[i];
  }
  const T inverse = T(1) / sum;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) p[i] *= inverse;
  return largest + std::log(sum);
}

}  // namespace conclave
