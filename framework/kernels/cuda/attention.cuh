// Grouped-query attention over a range of keys for each query, tile by tile with a running softmax (Dao et
// al., FlashAttention, arXiv 2205.14135); backward formulas in kernels/cpu/attention.cpp. A block owns 32
// rows of one head and walks over the other side 16 rows at a time; 8 neighbouring threads share a row. Two
// backward kernels, one owning queries and one owning keys, so that every sum has one owner; the price is
// computing the scores twice.
#pragma once

#include <limits>

#include "framework/kernels/attention_shape.h"
#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"
#include "framework/kernels/scalar_math.h"

namespace conclave::DIALECT {

constexpr int own_rows = 32, walk_rows = 16, row_threads = 8;
constexpr int rows_at_once = block_threads / row_threads, rounds = own_rows / rows_at_once;
constexpr int walks_per_thread = walk_rows / row_threads;
constexpr int score_stride = walk_rows + 1;

struct AttentionSizes : AttentionShape {
  float scale;

  HOST_DEVICE std::int64_t query_stride() const { return heads * head_width; }
  HOST_DEVICE std::int64_t out_stride() const { return heads * value_width; }
  HOST_DEVICE std::int64_t key_stride() const { return kv_heads * head_width; }
  HOST_DEVICE std::int64_t value_stride() const { return kv_heads * value_width; }
  HOST_DEVICE std::int64_t query_at(std::int64_t s, std::int64_t h) const {
    return s * queries * query_stride() + h * head_width;
  }
  HOST_DEVICE std::int64_t out_at(std::int64_t s, std::int64_t h) const {
    return s * queries * out_stride() + h * value_width;
  }
  HOST_DEVICE std::int64_t key_at(std::int64_t s, std::int64_t kv) const {
    return s * keys * key_stride() + kv * head_width;
  }
  HOST_DEVICE std::int64_t value_at(std::int64_t s, std::int64_t kv) const {
    return s * keys * value_stride() + kv * value_width;
  }
};

/// A row in shared memory: odd, so that rows begin at different banks.
HOST_DEVICE inline int padded(std::int64_t width) {
  return static_cast<int>(width) / 2 * 2 + 1;
}

/// The key ranges of one sequence.
struct SeenKeys {
  const std::int32_t *first, *last;
  std::int64_t queries;

  DEVICE SeenKeys(const AttentionSizes& z, const std::int32_t* first_keys, const std::int32_t* last_keys,
                  std::int64_t s)
      : first(first_keys + s * z.queries), last(last_keys + s * z.queries), queries(z.queries) {}
};

/// Keys first .. end - 1, none where end is not beyond first.
struct KeySpan {
  std::int64_t first, end;

  DEVICE bool has(std::int64_t key) const { return first <= key && key < end; }
  DEVICE bool meets(std::int64_t from, std::int64_t to) const { return first < to && from < end; }
  /// Both, and what lies between them.
  DEVICE void extend(const KeySpan& other) {
    if (other.first >= other.end) return;
    first = other.first < first ? other.first : first;
    end = other.end > end ? other.end : end;
  }
};

DEVICE KeySpan no_keys() {
  return {std::int64_t{1} << 62, 0};
}

/// Gives the keys that query t sees; a t behind the last query sees none.
DEVICE KeySpan seen_by(const SeenKeys& seen, std::int64_t t) {
  if (t >= seen.queries || seen.last[t] < seen.first[t]) return no_keys();
  return {seen.first[t], seen.last[t] + std::int64_t{1}};
}

/// All that queries first .. first + count - 1 see, and what lies between.
DEVICE KeySpan seen_by_rows(const SeenKeys& seen, std::int64_t first, int count) {
  KeySpan span = no_keys();
  for (std::int64_t t = first; t < first + count; ++t) span.extend(seen_by(seen, t));
  return span;
}

/// Rows first .. first + rows - 1 of a head into shared memory, zero from row `count` on.
template <class T>
DEVICE void load_tile(float* tile, int rows, int width, const T* head, std::int64_t stride,
                      std::int64_t first, std::int64_t count) {
  for (int i = thread_index(); i < rows * width; i += block_size()) {
    const int row = i / width, column = i % width;
    tile[row * padded(width) + column] =
        first + row < count ? load(head + (first + row) * stride + column) : 0;
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

/// log_sum_exp [sequences, heads, queries]
template <int per_thread, class T>
KERNEL attention_kernel(AttentionSizes z, const T* query, const T* key, const T* value,
                        const std::int32_t* first_keys, const std::int32_t* last_keys, std::int64_t tiles,
                        T* out, float* log_sum_exp) {
  SHARED_DYNAMIC(float, memory);
  const int width = static_cast<int>(z.head_width), value_width = static_cast<int>(z.value_width),
            stride = padded(width), value_stride = padded(value_width);
  float *q = memory, *k = q + own_rows * stride, *v = k + walk_rows * stride,
        *weights = v + walk_rows * value_stride;
  const std::int64_t s = block_index() / tiles / z.heads, h = block_index() / tiles % z.heads;
  const std::int64_t begin =
      (tiles - 1 - block_index() % tiles) * own_rows;  // those with most keys come first
  const SeenKeys seen(z, first_keys, last_keys, s);
  const std::int64_t kv = h / (z.heads / z.kv_heads), q_at = z.query_at(s, h), out_at = z.out_at(s, h),
                     k_at = z.key_at(s, kv), v_at = z.value_at(s, kv);
  load_tile(q, own_rows, width, query + q_at, z.query_stride(), begin, z.queries);
  float sums[rounds][per_thread] = {}, largest[rounds], total[rounds];
  UNROLL for (int round = 0; round < rounds; ++round) {
    largest[round] = -std::numeric_limits<float>::infinity();
    total[round] = 0;
  }
  const KeySpan span = seen_by_rows(seen, begin, own_rows);
  for (std::int64_t first = span.first; first < span.end; first += walk_rows) {
    sync_block();
    load_tile(k, walk_rows, width, key + k_at, z.key_stride(), first, z.keys);
    load_tile(v, walk_rows, value_width, value + v_at, z.value_stride(), first, z.keys);
    sync_block();
    UNROLL for (int round = 0; round < rounds; ++round) {
      const int row = thread_index() / row_threads + round * rows_at_once;
      const KeySpan own = seen_by(seen, begin + row);
      float score[walks_per_thread], highest = largest[round];
      UNROLL for (int n = 0; n < walks_per_thread; ++n) {
        const int j = thread_index() % row_threads + n * row_threads;
        score[n] = own.has(first + j) ? z.scale * dot_of_rows(q + row * stride, k + j * stride, width)
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
        add_row(sums[round], weights[row * score_stride + j], v + j * value_stride, value_width);
    }
  }
  UNROLL for (int round = 0; round < rounds; ++round) {
    const std::int64_t t = begin + thread_index() / row_threads + round * rows_at_once;
    if (t >= z.queries) continue;
    // A query that sees no key has summed up nothing.
    store_row(out + out_at + t * z.out_stride(), sums[round], total[round] == 0 ? 0 : 1 / total[round],
              value_width);
    if (thread_index() % row_threads == 0)
      log_sum_exp[(s * z.heads + h) * z.queries + t] = largest[round] + std::log(total[round]);
  }
}

}  // namespace conclave::DIALECT
