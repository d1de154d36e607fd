// Sums and maxima over the lanes of a warp and over a block, in an order that depends on nothing but the
// index.
#pragma once

#include "framework/kernels/cuda/dialect.h"

namespace conclave::DIALECT {

struct Sum {
  template <class T>
  DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Maximum {
  template <class T>
  DEVICE T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

/// Every lane gets the result. `lanes`: a power of two up to 32, neighbours that reduce among themselves.
template <class T, class Combine>
DEVICE T warp_reduce(T value, Combine combine, int lanes = warp_size) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) value = combine(value, shuffle_xor(value, mask));
  return value;
}

/// Every thread gets the result: warps reduce, then all add up the warps in order.
template <class T, class Combine>
DEVICE T block_reduce(T value, Combine combine) {
  SHARED(T, of_warp, block_threads / warp_size);
  value = warp_reduce(value, combine);
  if (lane_index() == 0) of_warp[warp_index()] = value;
  sync_block();
  T result = of_warp[0];
  for (int warp = 1; warp < block_size() / warp_size; ++warp) result = combine(result, of_warp[warp]);
  sync_block();  // the array may be used again
  return result;
}

}  // namespace conclave::DIALECT
