// The gradients of attention.cuh: P = exp(scale Q K^T - L), dP = dO V^T, dS = P (dP - delta) with delta =
// rowsum(dO O), dQ = scale dS K, dK = scale dS^T Q, dV = P^T dO.
#pragma once

#include "framework/kernels/cuda/attention.cuh"

namespace conclave::DIALECT {

/// What both kernels read; delta is float32 [sequences, heads, length].
template <class T>
struct AttentionInput {
  const T *query, *key, *value;
  const std::int32_t* document_start;
  const float* log_sum_exp;
  const T* dout;
  const float* delta;
};

/// A warp takes a row of a head.
template <class T>
KERNEL attention_delta_kernel(AttentionSizes z, const T* out, const T* dout, float* delta) {
  const std::int64_t item = item_of_warp(), t = item % z.length, s = item / z.length / z.heads;
  if (s >= z.sequences) return;
  const std::int64_t at = z.query_at(s, item / z.length % z.heads) + t * z.query_stride();
  float sum = 0;
  for (std::int64_t i = lane_index(); i < z.width; i += warp_size)
    sum += load(out + at + i) * load(dout + at + i);
  sum = warp_reduce(sum, Sum{});
  if (lane_index() == 0) delta[item] = sum;
}

template <int per_thread, class T>
KERNEL attention_dquery_kernel(AttentionSizes z, AttentionInput<T> in, std::int64_t tiles, T* dquery) {
  SHARED_DYNAMIC(float, memory);
  const int width = static_cast<int>(z.width), stride = z.stride();
  float *q = memory, *d = q + own_rows * stride, *k = d + own_rows * stride, *v = k + walk_rows * stride,
        *dscores = v + walk_rows * stride;
  const std::int64_t s = block_index() / tiles / z.heads, h = block_index() / tiles % z.heads;
  const std::int64_t begin = (tiles - 1 - block_index() % tiles) * own_rows;
  const std::int64_t end = begin + own_rows < z.length ? begin + own_rows : z.length;
  const std::int32_t* start = in.document_start + s * z.length;
  const std::int64_t q_at = z.query_at(s, h), k_at = z.key_at(s, h / (z.heads / z.kv_heads));
  const std::int64_t row_at = (s * z.heads + h) * z.length;
  load_tile(q, own_rows, z, in.query + q_at, z.query_stride(), begin);
  load_tile(d, own_rows, z, in.dout + q_at, z.query_stride(), begin);
  float sums[rounds][per_thread] = {};
  for (std::int64_t first = lowest_start(start, begin, own_rows, z.length); first < end; first += walk_rows) {
    sync_block();
    load_tile(k, walk_rows, z, in.key + k_at, z.key_stride(), first);
    load_tile(v, walk_rows, z, in.value + k_at, z.key_stride(), first);
    sync_block();
    UNROLL for (int round = 0; round < rounds; ++round) {
      const int row = thread_index() / row_threads + round * rows_at_once;
      const std::int64_t t = begin + row;
      const bool real = t < z.length;
      const std::int64_t from = real ? start[t] : z.length;
      const float shift = real ? in.log_sum_exp[row_at + t] : 0, delta = real ? in.delta[row_at + t] : 0;
      UNROLL for (int n = 0; n < walks_per_thread; ++n) {
        const int j = thread_index() % row_threads + n * row_threads;
        float dscore = 0;
        if (first + j >= from && first + j <= t) {
          const float p = exponential(z.scale * dot_of_rows(q + row * stride, k + j * stride, width) - shift);
          dscore = p * (dot_of_rows(d + row * stride, v + j * stride, width) - delta);
        }
        dscores[row * score_stride + j] = dscore;
      }
    }
    sync_warp();
    UNROLL for (int round = 0; round < rounds; ++round) {
      const int row = thread_index() / row_threads + round * rows_at_once;
      for (int j = 0; j < walk_rows; ++j)
        add_row(sums[round], dscores[row * score_stride + j], k + j * stride, width);
    }
  }
  UNROLL for (int round = 0; round < rounds; ++round) {
    const std::int64_t t = begin + thread_index() / row_threads + round * rows_at_once;
    if (t < z.length) store_row(dquery + q_at + t * z.query_stride(), sums[round], z.scale, width);
  }
}

/// A block owns keys and walks over the queries of all heads that share them, head after head.
template <int per_thread, class T>
KERNEL attention_dkey_dvalue_kernel(AttentionSizes z, AttentionInput<T> in, std::int64_t tiles, T* dkey,
                                    T* dvalue) {
  SHARED_DYNAMIC(float, memory);
  const int width = static_cast<int>(z.width), stride = z.stride();
  float *k = memory, *v = k + own_rows * stride, *q = v + own_rows * stride, *d = q + walk_rows * stride,
        *scores = d + walk_rows * stride, *dscores = scores + own_rows * score_stride;
  const std::int64_t s = block_index() / tiles / z.kv_heads, kv = block_index() / tiles % z.kv_heads;
  const std::int64_t begin = block_index() % tiles * own_rows, group = z.heads / z.kv_heads;
  const std::int32_t* start = in.document_start + s * z.length;
  const std::int64_t k_at = z.key_at(s, kv);
  load_tile(k, own_rows, z, in.key + k_at, z.key_stride(), begin);
  load_tile(v, own_rows, z, in.value + k_at, z.key_stride(), begin);
  float dk[rounds][per_thread] = {}, dv[rounds][per_thread] = {};
  for (std::int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    const std::int64_t q_at = z.query_at(s, h), row_at = (s * z.heads + h) * z.length;
    for (std::int64_t first = begin; first < z.length; first += walk_rows) {
      if (lowest_start(start, first, walk_rows, z.length) >= begin + own_rows) continue;  // another document
      sync_block();
      load_tile(q, walk_rows, z, in.query + q_at, z.query_stride(), first);
      load_tile(d, walk_rows, z, in.dout + q_at, z.query_stride(), first);
      sync_block();
      UNROLL for (int round = 0; round < rounds; ++round) {
        const int row = thread_index() / row_threads + round * rows_at_once;
        const std::int64_t own = begin + row;
        UNROLL for (int n = 0; n < walks_per_thread; ++n) {
          const int j = thread_index() % row_threads + n * row_threads;
          const std::int64_t t = first + j;
          float p = 0, dscore = 0;
          if (t < z.length && own <= t && own >= start[t]) {
            p = exponential(z.scale * dot_of_rows(q + j * stride, k + row * stride, width) -
                            in.log_sum_exp[row_at + t]);
            dscore = p * (dot_of_rows(d + j * stride, v + row * stride, width) - in.delta[row_at + t]);
          }
          scores[row * score_stride + j] = p;
          dscores[row * score_stride + j] = dscore;
        }
      }
      sync_warp();
      UNROLL for (int round = 0; round < rounds; ++round) {
        const int row = thread_index() / row_threads + round * rows_at_once;
        for (int j = 0; j < walk_rows; ++j) {
          add_row(dv[round], scores[row * score_stride + j], d + j * stride, width);
          add_row(dk[round], dscores[row * score_stride + j], q + j * stride, width);
        }
      }
    }
  }
  UNROLL for (int round = 0; round < rounds; ++round) {
    const std::int64_t own = begin + thread_index() / row_threads + round * rows_at_once;
    if (own >= z.length) continue;
    store_row(dkey + k_at + own * z.key_stride(), dk[round], z.scale, width);
    store_row(dvalue + k_at + own * z.key_stride(), dv[round], 1, width);
  }
}

}  // namespace conclave::DIALECT
