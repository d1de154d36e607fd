// The gradients of attention_tiles.cuh, by the formulas of attention_backward.cuh: one kernel owns queries,
// one owns keys, and each computes the scores for itself, so that every sum has one owner and one order.
#pragma once

#include "framework/kernels/cuda/attention_backward.cuh"
#include "framework/kernels/cuda/attention_tiles.cuh"

namespace conclave::DIALECT {

template <int width>
KERNEL attention_tiles_dquery_kernel(AttentionSizes z, AttentionInput<BFloat16> in, std::int64_t tiles,
                                     BFloat16* dquery) {
  SHARED_DYNAMIC(BFloat16, memory);
  constexpr int stride = row_stride<width>, stage = 2 * walked * stride;
  const int warps = block_size() / warp_size, own = warps * tile_side;
  BFloat16 *q = memory, *d = q + own * stride, *walk = d + own * stride;  // two stages of keys and values
  BFloat16* weights = walk + 2 * stage + warp_index() * tile_side * weight_stride;
  float* scores = reinterpret_cast<float*>(walk + 2 * stage + warps * tile_side * weight_stride) +
                  warp_index() * 2 * tile_side * sum_stride;
  float* dps = scores + tile_side * sum_stride;
  const std::int64_t s = block_index() / tiles / z.heads, h = block_index() / tiles % z.heads;
  const std::int64_t begin = (tiles - 1 - block_index() % tiles) * own;
  const SeenKeys seen(z, in.first_keys, in.last_keys, s);
  const KeySpan span = seen_by_warp(seen, begin, begin + own);
  const std::int64_t q_at = z.query_at(s, h), k_at = z.key_at(s, h / (z.heads / z.kv_heads)),
                     row_at = (s * z.heads + h) * z.queries;
  const auto copy_walk = [&](int to, std::int64_t first) {
    copy_rows<width>(walk + to * stage, walked, in.key + k_at, z.key_stride(), first, span.end);
    copy_rows<width>(walk + to * stage + walked * stride, walked, in.value + k_at, z.key_stride(), first,
                     span.end);
  };

  const std::int64_t own_first = begin + warp_index() * tile_side;
  const int row = lane_index() / 2, parity = lane_index() % 2;
  const std::int64_t t = own_first + row;
  const bool real = t < z.queries;
  const float shift = real ? in.log_sum_exp[row_at + t] : 0, delta = real ? in.delta[row_at + t] : 0;
  const KeySpan of_row = seen_by(seen, t), of_warp = seen_by_warp(seen, own_first, own_first + tile_side);
  SumTile sums[width / tile_side];
  UNROLL for (SumTile& sum : sums) clear_tile(sum);

  copy_rows<width>(q, own, in.query + q_at, z.query_stride(), begin, z.queries);
  copy_rows<width>(d, own, in.dout + q_at, z.query_stride(), begin, z.queries);
  if (span.first < span.end) copy_walk(0, span.first);
  commit_copies();
  int now = 0;
  for (std::int64_t first = span.first; first < span.end; first += walked, now = 1 - now) {
    if (first + walked < span.end) copy_walk(1 - now, first + walked);
    commit_copies();
    wait_copies<1>();
    sync_block();
    if (of_warp.meets(first, first + walked)) {
      const BFloat16 *k = walk + now * stage, *v = k + walked * stride;
      SumTile products[walk_tiles];
      multiply_rows<width>(products, q + warp_index() * tile_side * stride, k);
      store_sums(scores, products);
      multiply_rows<width>(products, d + warp_index() * tile_side * stride, v);
      store_sums(dps, products);
      sync_warp();
      UNROLL for (int n = 0; n < tile_side; ++n) {
        const int column = 2 * n + parity;
        float dscore = 0;
        if (of_row.has(first + column))
          dscore = exponential(z.scale * scores[row * sum_stride + column] - shift) *
                   (dps[row * sum_stride + column] - delta);
        store(weights + row * weight_stride + column, dscore);
      }
      sync_warp();
      add_weighted<width>(sums, weights, k);
    }
    sync_block();
  }
  store_rows<width>(dquery + q_at, z.query_stride(), own_first, z.queries, sums, z.scale, scores);
}

/// A block owns keys and walks over the queries of all heads that share them, head after head.
template <int width>
KERNEL attention_tiles_dkey_dvalue_kernel(AttentionSizes z, AttentionInput<BFloat16> in, std::int64_t tiles,
                                          BFloat16* dkey, BFloat16* dvalue) {
  SHARED_DYNAMIC(BFloat16, memory);
  SHARED(float, shifts, walked);
  SHARED(float, deltas, walked);
  SHARED(std::int64_t, firsts, walked);
  SHARED(std::int64_t, ends, walked);
  constexpr int stride = row_stride<width>, stage = 2 * walked * stride;
  const int warps = block_size() / warp_size, own = warps * tile_side;
  BFloat16 *k = memory, *v = k + own * stride, *walk = v + own * stride;  // two stages of queries and dout
  BFloat16* weights = walk + 2 * stage + warp_index() * 2 * tile_side * weight_stride;
  BFloat16* dweights = weights + tile_side * weight_stride;
  float* scores = reinterpret_cast<float*>(walk + 2 * stage + warps * 2 * tile_side * weight_stride) +
                  warp_index() * 2 * tile_side * sum_stride;
  float* dps = scores + tile_side * sum_stride;
  const std::int64_t s = block_index() / tiles / z.kv_heads, kv = block_index() / tiles % z.kv_heads;
  const std::int64_t begin = block_index() % tiles * own, group = z.heads / z.kv_heads;
  const SeenKeys seen(z, in.first_keys, in.last_keys, s);
  const QuerySpan queries = queries_that_see(seen, begin, begin + own);
  const std::int64_t k_at = z.key_at(s, kv), first_query = queries.first / walked * walked;
  struct Place {
    std::int64_t head, first;
  };
  const std::int64_t heads_end = (kv + 1) * group;
  // The next queries, from a place on, among which one sees one of the block's keys.
  const auto seek = [&](Place place) {
    for (;;) {
      if (place.first >= queries.end) place = {place.head + 1, first_query};
      if (place.head >= heads_end ||
          seen_by_warp(seen, place.first, place.first + walked).meets(begin, begin + own))
        return place;
      place.first += walked;
    }
  };
  const auto copy_walk = [&](int to, Place place) {
    const std::int64_t q_at = z.query_at(s, place.head);
    copy_rows<width>(walk + to * stage, walked, in.query + q_at, z.query_stride(), place.first, z.queries);
    copy_rows<width>(walk + to * stage + walked * stride, walked, in.dout + q_at, z.query_stride(),
                     place.first, z.queries);
  };

  const std::int64_t own_first = begin + warp_index() * tile_side;
  const int row = lane_index() / 2, parity = lane_index() % 2;
  SumTile dk[width / tile_side], dv[width / tile_side];
  UNROLL for (SumTile& sum : dk) clear_tile(sum);
  UNROLL for (SumTile& sum : dv) clear_tile(sum);
  copy_rows<width>(k, own, in.key + k_at, z.key_stride(), begin, z.keys);
  copy_rows<width>(v, own, in.value + k_at, z.key_stride(), begin, z.keys);
  Place place = seek({kv * group, first_query});
  if (place.head < heads_end) copy_walk(0, place);
  commit_copies();
  for (int now = 0; place.head < heads_end; now = 1 - now) {
    const Place next = seek({place.head, place.first + walked});
    if (next.head < heads_end) copy_walk(1 - now, next);
    commit_copies();
    if (thread_index() < walked) {
      const std::int64_t t = place.first + thread_index(), at = (s * z.heads + place.head) * z.queries + t;
      const bool real = t < z.queries;
      const KeySpan span = seen_by(seen, t);  // nothing is seen beyond the end
      shifts[thread_index()] = real ? in.log_sum_exp[at] : 0;
      deltas[thread_index()] = real ? in.delta[at] : 0;
      firsts[thread_index()] = span.first;
      ends[thread_index()] = span.end;
    }
    wait_copies<1>();
    sync_block();
    static_assert(walked == warp_size);
    const bool seen_here =
        KeySpan{firsts[lane_index()], ends[lane_index()]}.meets(own_first, own_first + tile_side);
    if (warp_reduce(seen_here ? 1 : 0, Maximum{}) > 0) {
      const BFloat16 *q = walk + now * stage, *d = q + walked * stride;
      SumTile products[walk_tiles];
      multiply_rows<width>(products, k + warp_index() * tile_side * stride, q);
      store_sums(scores, products);
      multiply_rows<width>(products, v + warp_index() * tile_side * stride, d);
      store_sums(dps, products);
      sync_warp();
      UNROLL for (int n = 0; n < tile_side; ++n) {
        const int column = 2 * n + parity;
        const std::int64_t key = own_first + row;
        float p = 0, dscore = 0;
        if (KeySpan{firsts[column], ends[column]}.has(key)) {
          p = exponential(z.scale * scores[row * sum_stride + column] - shifts[column]);
          dscore = p * (dps[row * sum_stride + column] - deltas[column]);
        }
        store(weights + row * weight_stride + column, p);
        store(dweights + row * weight_stride + column, dscore);
      }
      sync_warp();
      add_weighted<width>(dv, weights, d);
      add_weighted<width>(dk, dweights, q);
    }
    sync_block();
    place = next;
  }
  store_rows<width>(dkey + k_at, z.key_stride(), own_first, z.keys, dk, z.scale, scores);
  store_rows<width>(dvalue + k_at, z.key_stride(), own_first, z.keys, dv, 1, scores);
}

}  // namespace conclave::DIALECT
