// Causal grouped-query attention inside documents, tile by tile with a running softmax (Dao et al.,
// FlashAttention, arXiv 2205.14135); backward formulas in kernels/cpu/attention.cpp. A block owns 32 rows of
// one head and walks over the other side 16 rows at a time; 8 neighbouring threads share a row. Two backward
// kernels, one owning queries and one owning keys, so that every sum has one owner; the price is computing
// the scores twice.
#pragma once

#include <limits>

#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/scalar_math.h"

namespace conclave::DIALECT {

constexpr int own_rows = 32, walk_rows = 16, row_threads = 8;
constexpr int rows_at_once = block_threads / row_threads, rounds = own_rows / rows_at_once;
constexpr int walks_per_thread = walk_rows / row_threads;
constexpr int score_stride = walk_rows + 1;

struct AttentionSizes {
  std::int64_t sequences, length, heads, kv_heads, width;
  float scale;

  std::int64_t tiles() const { return blocks_for(length, own_rows); }
  HOST_DEVICE int stride() const {
    return static_cast<int>(width) + 1;
  }  // in shared memory: odd, so banks differ
  HOST_DEVICE std::int64_t query_stride() const { return heads * width; }
  HOST_DEVICE std::int64_t key_stride() const { return kv_heads * width; }
  HOST_DEVICE std::int64_t query_at(std::int64_t s, std::int64_t h) const {
    return s * length * query_stride() + h * width;
  }
  HOST_DEVICE std::int64_t key_at(std::int64_t s, std::int64_t kv) const {
    return s * length * key_stride() + kv * width;
  }
};

/// Rows first .. first + rows - 1 of a head into shared memory, zero from row `length` on.
template <class T>
DEVICE void load_tile(float* tile, int rows, const AttentionSizes& z, const T* head, std::int64_t stride,
                      std::int64_t first) {
  const int width = static_cast<int>(z.width);
  for (int i = thread_index(); i < rows * width; i += block_size()) {
    const int row = i / width, column = i % width;
    tile[row * z.stride() + column] =
        first + row < z.length ? load(head + (first + row) * stride + column) : 0;
  }
}

DEVICE float dot_of_rows(const float* a, const float* b, int width) {
  float sum = 0;
  for (int i = 0; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

/// sums[i] += factor * row[c + 8 i]
template <int per_thread>
DEVICE void add_row(float (&sums)[per_thread], float factor, const float* row, int width) {
  UNROLL for (int i = 0; i < per_thread; ++i) {
    const int column = thread_index() % row_threads + row_threads * i;
    if (column < width) sums[i] += factor * row[column];
  }
}

template <int per_thread, class T>
DEVICE void store_row(T* row, const float (&sums)[per_thread], float factor, int width) {
  UNROLL for (int i = 0; i < per_thread; ++i) {
    const int column = thread_index() % row_threads + row_threads * i;
    if (column < width) store(row + column, sums[i] * factor);
  }
}

/// The lowest document start of queries first .. first + rows - 1: no key before it is seen.
DEVICE std::int64_t lowest_start(const std::int32_t* start, std::int64_t first, int rows,
                                 std::int64_t length) {
  std::int64_t least = length;
  for (std::int64_t t = first; t < first + rows && t < length; ++t)
    least = start[t] < least ? start[t] : least;
  return least;
}

/// log_sum_exp [sequences, heads, length]
template <int per_thread, class T>
KERNEL attention_kernel(AttentionSizes z, const T* query, const T* key, const T* value,
                        const std::int32_t* document_start, std::int64_t tiles, T* out, float* log_sum_exp) {
  SHARED_DYNAMIC(float, memory);
  const int width = static_cast<int>(z.width), stride = z.stride();
  float *q = memory, *k = q + own_rows * stride, *v = k + walk_rows * stride,
        *weights = v + walk_rows * stride;
  const std::int64_t s = block_index() / tiles / z.heads, h = block_index() / tiles % z.heads;
  const std::int64_t begin =
      (tiles - 1 - block_index() % tiles) * own_rows;  // those with most keys come first
  const std::int64_t end = begin + own_rows < z.length ? begin + own_rows : z.length;
  const std::int32_t* start = document_start + s * z.length;
  const std::int64_t q_at = z.query_at(s, h), k_at = z.key_at(s, h / (z.heads / z.kv_heads));
  load_tile(q, own_rows, z, query + q_at, z.query_stride(), begin);
  float sums[rounds][per_thread] = {}, largest[rounds], total[rounds];
  UNROLL for (int round = 0; round < rounds; ++round) {
    largest[round] = -std::numeric_limits<float>::infinity();
    total[round] = 0;
  }
  for (std::int64_t first = lowest_start(start, begin, own_rows, z.length); first < end; first += walk_rows) {
    sync_block();
    load_tile(k, walk_rows, z, key + k_at, z.key_stride(), first);
    load_tile(v, walk_rows, z, value + k_at, z.key_stride(), first);
    sync_block();
    UNROLL for (int round = 0; round < rounds; ++round) {
      const int row = thread_index() / row_threads + round * rows_at_once;
      const std::int64_t t = begin + row, from = t < z.length ? start[t] : z.length;
      float score[walks_per_thread], highest = largest[round];
      UNROLL for (int n = 0; n < walks_per_thread; ++n) {
        const int j = thread_index() % row_threads + n * row_threads;
        const bool seen = first + j >= from && first + j <= t;
        score[n] = seen ? z.scale * dot_of_rows(q + row * stride, k + j * stride, width)
                        : -std::numeric_limits<float>::infinity();
        highest = highest < score[n] ? score[n] : highest;
      }
      highest = warp_reduce(highest, Maximum{}, row_threads);
      float added = 0;
      UNROLL for (int n = 0; n < walks_per_thread; ++n) {
        const int j = thread_index() % row_threads + n * row_threads;
        const float weight =
            score[n] == -std::numeric_limits<float>::infinity() ? 0 : exponential(score[n] - highest);
        weights[row * score_stride + j] = weight;
        added += weight;
      }
      // Nothing seen so far: the sums are zero, and must not become 0 * NaN.
      const float keep = total[round] == 0 ? 1 : exponential(largest[round] - highest);
      total[round] = total[round] * keep + warp_reduce(added, Sum{}, row_threads);
      largest[round] = highest;
      UNROLL for (int i = 0; i < per_thread; ++i) sums[round][i] *= keep;
    }
    sync_warp();  // the weights of a row stay within a warp
    UNROLL for (int round = 0; round < rounds; ++round) {
      const int row = thread_index() / row_threads + round * rows_at_once;
      for (int j = 0; j < walk_rows; ++j)
        add_row(sums[round], weights[row * score_stride + j], v + j * stride, width);
    }
  }
  UNROLL for (int round = 0; round < rounds; ++round) {
    const std::int64_t t = begin + thread_index() / row_threads + round * rows_at_once;
    if (t >= z.length) continue;
    store_row(out + q_at + t * z.query_stride(), sums[round], 1 / total[round], width);
    if (thread_index() % row_threads == 0)
      log_sum_exp[(s * z.heads + h) * z.length + t] = largest[round] + std::log(total[round]);
  }
}

}  // namespace conclave::DIALECT
