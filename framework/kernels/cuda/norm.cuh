// RMSNorm, formulas in kernels/cpu/norm.cpp. A warp takes a row, so that narrow rows (heads) waste no
// threads.
#pragma once

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

template <class T>
KERNEL rms_norm_kernel(const T* x, const T* weight, float epsilon, std::int64_t rows, std::int64_t width,
                       T* y, float* inverse_rms) {
  const std::int64_t row = item_of_warp();
  if (row >= rows) return;
  const T* in = x + row * width;
  float squares = 0;
  for (std::int64_t i = lane_index(); i < width; i += warp_size) squares += load(in + i) * load(in + i);
  const float r = 1 / std::sqrt(warp_reduce(squares, Sum{}) / static_cast<float>(width) + epsilon);
  if (lane_index() == 0) inverse_rms[row] = r;
  for (std::int64_t i = lane_index(); i < width; i += warp_size)
    store(y + row * width + i, load(weight + i) * load(in + i) * r);
}

template <class T>
KERNEL rms_norm_dx_kernel(const T* x, const T* weight, const float* inverse_rms, const T* dy,
                          std::int64_t rows, std::int64_t width, T* dx) {
  const std::int64_t row = item_of_warp();
  if (row >= rows) return;
  const T *in = x + row * width, *d = dy + row * width;
  float dot = 0;
  for (std::int64_t i = lane_index(); i < width; i += warp_size)
    dot += load(weight + i) * load(d + i) * load(in + i);
  const float r = inverse_rms[row], pull = warp_reduce(dot, Sum{}) * r * r / static_cast<float>(width);
  for (std::int64_t i = lane_index(); i < width; i += warp_size)
    store(dx + row * width + i, r * (load(weight + i) * load(d + i) - load(in + i) * pull));
}

/// dweight is summed over chunks of rows, then over chunks in order.
constexpr std::int64_t norm_chunk = 128;

/// of_chunk [chunks, width]: a thread sums one column of one chunk.
template <class T>
KERNEL rms_norm_dweight_kernel(const T* x, const float* inverse_rms, const T* dy, std::int64_t rows,
                               std::int64_t width, float* of_chunk) {
  const std::int64_t item = first_item(), chunk = item / width, i = item % width;
  const std::int64_t begin = chunk * norm_chunk, end = begin + norm_chunk < rows ? begin + norm_chunk : rows;
  if (begin >= rows) return;
  float sum = 0;
  for (std::int64_t row = begin; row < end; ++row)
    sum += load(dy + row * width + i) * load(x + row * width + i) * inverse_rms[row];
  of_chunk[item] = sum;
}

/// total[i] = sum over rows of parts [rows, width], in order, or += with add.
template <class T>
KERNEL sum_rows_kernel(const float* parts, std::int64_t rows, std::int64_t width, bool add, T* total) {
  const std::int64_t i = first_item();
  if (i >= width) return;
  float sum = add ? load(total + i) : 0;
  for (std::int64_t row = 0; row < rows; ++row) sum += parts[row * width + i];
  store(total + i, sum);
}

}  // namespace conclave::DIALECT
