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
  const std::int64_t end = begin + own < z.length ? begin + own : z.length;
  const std::int32_t* start = in.document_start + s * z.length;
  const std::int64_t q_at = z.query_at(s, h), k_at = z.key_at(s, h / (z.heads / z.kv_heads)),
                     row_at = (s * z.heads + h) * z.length;
  const auto copy_walk = [&](int to, std::int64_t first) {
    copy_rows<width>(walk + to * stage, walked, in.key + k_at, z.key_stride(), first, end);
    copy_rows<width>(walk + to * stage + walked * stride, walked, in.value + k_at, z.key_stride(), first,
                     end);
  };

  const std::int64_t own_first = begin + warp_index() * tile_side;
  const int row = lane_index() / 2, parity = lane_index() % 2;
  const std::int64_t t = own_first + row;
  const bool real = t < z.length;
  const std::int64_t from = real ? start[t] : z.length;
  const float shift = real ? in.log_sum_exp[row_at + t] : 0, delta = real ? in.delta[row_at + t] : 0;
  const std::int64_t warp_from = lowest_start_of(start, own_first, own_first + tile_side, z.length);
  SumTile sums[width / tile_side];
  UNROLL for (SumTile& sum : sums) clear_tile(sum);

  const std::int64_t first_key = lowest_start_of(start, begin, end, z.length);
  copy_rows<width>(q, own, in.query + q_at, z.query_stride(), begin, z.length);
  copy_rows<width>(d, own, in.dout + q_at, z.query_stride(), begin, z.length);
  copy_walk(0, first_key);
  commit_copies();
  int now = 0;
  for (std::int64_t first = first_key; first < end; first += walked, now = 1 - now) {
    if (first + walked < end) copy_walk(1 - now, first + walked);
    commit_copies();
    wait_copies<1>();
    sync_block();
    if (first < own_first + tile_side && first + walked > warp_from) {
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
        if (first + column >= from && first + column <= t)
          dscore = exponential(z.scale * scores[row * sum_stride + column] - shift) *
                   (dps[row * sum_stride + column] - delta);
        store(weights + row * weight_stride + column, dscore);
      }
      sync_warp();
      add_weighted<width>(sums, weights, k);
    }
    sync_block();
  }
  store_rows<width>(dquery + q_at, z.query_stride(), own_first, z.length, sums, z.scale, scores);
}

/// A block owns keys and walks over the queries of all heads that share them, head after head.
template <int width>
KERNEL attention_tiles_dkey_dvalue_kernel(AttentionSizes z, AttentionInput<BFloat16> in, std::int64_t tiles,
                                          BFloat16* dkey, BFloat16* dvalue) {
  SHARED_DYNAMIC(BFloat16, memory);
  SHARED(float, shifts, walked);
  SHARED(float, deltas, walked);
  SHARED(std::int64_t, starts, walked);
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
  const std::int32_t* start = in.document_start + s * z.length;
  const std::int64_t k_at = z.key_at(s, kv);
  struct Place {
    std::int64_t head, first;
  };
  const std::int64_t heads_end = (kv + 1) * group;
  // The next queries, from a place on, among which one sees one of the block's keys.
  const auto seek = [&](Place place) {
    for (;;) {
      if (place.first >= z.length) place = {place.head + 1, begin};
      if (place.head >= heads_end ||
          lowest_start_of(start, place.first, place.first + walked, z.length) < begin + own)
        return place;
      place.first += walked;
    }
  };
  const auto copy_walk = [&](int to, Place place) {
    const std::int64_t q_at = z.query_at(s, place.head);
    copy_rows<width>(walk + to * stage, walked, in.query + q_at, z.query_stride(), place.first, z.length);
    copy_rows<width>(walk + to * stage + walked * stride, walked, in.dout + q_at, z.query_stride(),
                     place.first, z.length);
  };

  const std::int64_t own_first = begin + warp_index() * tile_side;
  const int row = lane_index() / 2, parity = lane_index() % 2;
  SumTile dk[width / tile_side], dv[width / tile_side];
  UNROLL for (SumTile& sum : dk) clear_tile(sum);
  UNROLL for (SumTile& sum : dv) clear_tile(sum);
  copy_rows<width>(k, own, in.key + k_at, z.key_stride(), begin, z.length);
  copy_rows<width>(v, own, in.value + k_at, z.key_stride(), begin, z.length);
  Place place = seek({kv * group, begin});
  if (place.head < heads_end) copy_walk(0, place);
  commit_copies();
  for (int now = 0; place.head < heads_end; now = 1 - now) {
    const Place next = seek({place.head, place.first + walked});
    if (next.head < heads_end) copy_walk(1 - now, next);
    commit_copies();
    if (thread_index() < walked) {
      const std::int64_t t = place.first + thread_index(), at = (s * z.heads + place.head) * z.length + t;
      const bool real = t < z.length;
      shifts[thread_index()] = real ? in.log_sum_exp[at] : 0;
      deltas[thread_index()] = real ? in.delta[at] : 0;
      starts[thread_index()] = real ? start[t] : z.length;  // beyond the end nothing is seen
    }
    wait_copies<1>();
    sync_block();
    if (place.first + walked > own_first) {
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
        if (key <= place.first + column && key >= starts[column]) {
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
  store_rows<width>(dkey + k_at, z.key_stride(), own_first, z.length, dk, z.scale, scores);
  store_rows<width>(dvalue + k_at, z.key_stride(), own_first, z.length, dv, 1, scores);
}

}  // namespace conclave::DIALECT
