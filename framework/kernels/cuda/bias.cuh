// Biases: each is added to a column, and its gradient is the sum of the column.
#pragma once

#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

template <class T>
KERNEL add_bias_kernel(const T* x, const T* bias, std::int64_t count, std::int64_t width, T* y) {
  for (std::int64_t i = first_item(); i < count; i += item_stride())
    store(y + i, load(x + i) + load(bias + i % width));
}

/// of_chunk [chunks, width]: a thread sums one column of one chunk of rows.
template <class T>
KERNEL sum_chunks_kernel(const T* x, std::int64_t rows, std::int64_t width, std::int64_t rows_of_chunk,
                         float* of_chunk) {
  const std::int64_t item = first_item(), i = item % width, begin = item / width * rows_of_chunk;
  const std::int64_t end = begin + rows_of_chunk < rows ? begin + rows_of_chunk : rows;
  if (begin >= rows) return;
  float sum = 0;
  for (std::int64_t row = begin; row < end; ++row) sum += load(x + row * width + i);
  of_chunk[item] = sum;
}

}  // namespace conclave::DIALECT
