// The gradients of attention.cuh: P = exp(scale Q K^T - L), dP = dO V^T, dS = P (dP - delta) with delta =
// rowsum(dO O), dQ = scale dS K, dK = scale dS^T Q, dV = P^T dO.
#pragma once

#include "framework/kernels/cuda/attention.cuh"

namespace conclave::DIALECT {

/// Both kernels read these tensors; delta is float32 [sequences, heads, queries].
template <class T>
struct AttentionInput {
  const T *query, *key, *value;
  const std::int32_t *first_keys, *last_keys;
  const float* log_sum_exp;
  const T* dout;
  const float* delta;
};

/// A warp takes a row of a head.
template <class T>
KERNEL attention_delta_kernel(AttentionSizes z, const T* out, const T* dout, float* delta) {
  const std::int64_t item = item_of_warp(), t = item % z.queries, s = item / z.queries / z.heads;
  if (s >= z.sequences) return;
  const std::int64_t at = z.out_at(s, item / z.queries % z.heads) + t * z.out_stride();
  float sum = 0;
  for (std::int64_t i = lane_index(); i < z.value_width; i += warp_size)
    sum += load(out + at + i) * load(dout + at + i);
  sum = warp_reduce(sum, Sum{});
  if (lane_index() == 0) delta[item] = sum;
}

template <int per_thread, class T>
KERNEL attention_dquery_kernel(AttentionSizes z, AttentionInput<T> in, std::int64_t tiles, T* dquery) {
  SHARED_DYNAMIC(float, memory);
  const int width = static_cast<int>(z.head_width), value_width = static_cast<int>(z.value_width),
            stride = padded(width), value_stride = padded(value_width);
  float *q = memory, *d = q + own_rows * stride, *k = d + own_rows * value_stride,
        *v = k + walk_rows * stride, *dscores = v + walk_rows * value_stride;
  const std::int64_t s = block_index() / tiles / z.heads, h = block_index() / tiles % z.heads;
  const std::int64_t begin = (tiles - 1 - block_index() % tiles) * own_rows;
  const SeenKeys seen(z, in.first_keys, in.last_keys, s);
  const std::int64_t kv = h / (z.heads / z.kv_heads), q_at = z.query_at(s, h), out_at = z.out_at(s, h),
                     k_at = z.key_at(s, kv), v_at = z.value_at(s, kv), row_at = (s * z.heads + h) * z.queries;
  load_tile(q, own_rows, width, in.query + q_at, z.query_stride(), begin, z.queries);
  load_tile(d, own_rows, value_width, in.dout + out_at, z.out_stride(), begin, z.queries);
  float sums[rounds][per_thread] = {};
  const KeySpan span = seen_by_rows(seen, begin, own_rows);
  for (std::int64_t first = span.first; first < span.end; first += walk_rows) {
    sync_block();
    load_tile(k, walk_rows, width, in.key + k_at, z.key_stride(), first, z.keys);
    load_tile(v, walk_rows, value_width, in.value + v_at, z.value_stride(), first, z.keys);
    sync_block();
    UNROLL for (int round = 0; round < rounds; ++round) {
      const int row = thread_index() / row_threads + round * rows_at_once;
      const std::int64_t t = begin + row;
      const bool real = t < z.queries;
      const KeySpan own = seen_by(seen, t);
      const float shift = real ? in.log_sum_exp[row_at + t] : 0, delta = real ? in.delta[row_at + t] : 0;
      UNROLL for (int n = 0; n < walks_per_thread; ++n) {
        const int j = thread_index() % row_threads + n * row_threads;
        float dscore = 0;
        if (own.has(first + j)) {
          const float p = exponential(z.scale * dot_of_rows(q + row * stride, k + j * stride, width) - shift);
          dscore = p * (dot_of_rows(d + row * value_stride, v + j * value_stride, value_width) - delta);
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
    if (t < z.queries) store_row(dquery + q_at + t * z.query_stride(), sums[round], z.scale, width);
  }
}

/// Queries first .. end - 1: every query that sees one of the keys from `begin` to `end_key` - 1 is among
/// them. All threads of a block find them together.
struct QuerySpan {
  std::int64_t first, end;
};

DEVICE QuerySpan queries_that_see(const SeenKeys& seen, std::int64_t begin, std::int64_t end_key) {
  std::int64_t before_first = -seen.queries, end = 0;  // the first query, negated: the maximum is found
  for (std::int64_t t = thread_index(); t < seen.queries; t += block_size())
    if (seen_by(seen, t).meets(begin, end_key)) {
      before_first = before_first < -t ? -t : before_first;
      end = t + 1;
    }
  return {-block_reduce(before_first, Maximum{}), block_reduce(end, Maximum{})};
}

/// A block owns keys and walks over the queries of all heads that share them, head after head.
template <int per_thread, class T>
KERNEL attention_dkey_dvalue_kernel(AttentionSizes z, AttentionInput<T> in, std::int64_t tiles, T* dkey,
                                    T* dvalue) {
  SHARED_DYNAMIC(float, memory);
  const int width = static_cast<int>(z.head_width), value_width = static_cast<int>(z.value_width),
            stride = padded(width), value_stride = padded(value_width);
  float *k = memory, *v = k + own_rows * stride, *q = v + own_rows * value_stride,
        *d = q + walk_rows * stride, *scores = d + walk_rows * value_stride,
        *dscores = scores + own_rows * score_stride;
  const std::int64_t s = block_index() / tiles / z.kv_heads, kv = block_index() / tiles % z.kv_heads;
  const std::int64_t begin = block_index() % tiles * own_rows, group = z.heads / z.kv_heads;
  const SeenKeys seen(z, in.first_keys, in.last_keys, s);
  const std::int64_t k_at = z.key_at(s, kv), v_at = z.value_at(s, kv);
  load_tile(k, own_rows, width, in.key + k_at, z.key_stride(), begin, z.keys);
  load_tile(v, own_rows, value_width, in.value + v_at, z.value_stride(), begin, z.keys);
  float dk[rounds][per_thread] = {}, dv[rounds][per_thread] = {};
  const QuerySpan queries = queries_that_see(seen, begin, begin + own_rows);
  for (std::int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    const std::int64_t q_at = z.query_at(s, h), out_at = z.out_at(s, h),
                       row_at = (s * z.heads + h) * z.queries;
    for (std::int64_t first = queries.first / walk_rows * walk_rows; first < queries.end;
         first += walk_rows) {
      if (!seen_by_rows(seen, first, walk_rows).meets(begin, begin + own_rows)) continue;
      sync_block();
      load_tile(q, walk_rows, width, in.query + q_at, z.query_stride(), first, z.queries);
      load_tile(d, walk_rows, value_width, in.dout + out_at, z.out_stride(), first, z.queries);
      sync_block();
      UNROLL for (int round = 0; round < rounds; ++round) {
        const int row = thread_index() / row_threads + round * rows_at_once;
        const std::int64_t own = begin + row;
        UNROLL for (int n = 0; n < walks_per_thread; ++n) {
          const int j = thread_index() % row_threads + n * row_threads;
          const std::int64_t t = first + j;
          float p = 0, dscore = 0;
          if (seen_by(seen, t).has(own)) {
            p = exponential(z.scale * dot_of_rows(q + j * stride, k + row * stride, width) -
                            in.log_sum_exp[row_at + t]);
            dscore = p * (dot_of_rows(d + j * value_stride, v + row * value_stride, value_width) -
                          in.delta[row_at + t]);
          }
          scores[row * score_stride + j] = p;
          dscores[row * score_stride + j] = dscore;
        }
      }
      sync_warp();
      UNROLL for (int round = 0; round < rounds; ++round) {
        const int row = thread_index() / row_threads + round * rows_at_once;
        for (int j = 0; j < walk_rows; ++j) {
          add_row(dv[round], scores[row * score_stride + j], d + j * value_stride, value_width);
          add_row(dk[round], dscores[row * score_stride + j], q + j * stride, width);
        }
      }
    }
  }
  UNROLL for (int round = 0; round < rounds; ++round) {
    const std::int64_t own = begin + thread_index() / row_threads + round * rows_at_once;
    if (own >= z.keys) continue;
    store_row(dkey + k_at + own * z.key_stride(), dk[round], z.scale, width);
    store_row(dvalue + v_at + own * z.value_stride(), dv[round], 1, value_width);
  }
}

}  // namespace conclave::DIALECT
