// Attention of attention.cuh on tensor cores, for bfloat16 and heads 64 or 128 wide, whose values are as
// wide (Dao et al., FlashAttention, arXiv 2205.14135). A warp owns 16 rows, a block's warps walk over the
// other side together, 32 rows at a time, while the next 32 are copied. Products sum in float32; weights are
// rounded to bfloat16 before they multiply values, as the tensor cores take nothing wider.
#pragma once

#include "framework/kernels/cuda/attention.cuh"
#include "framework/kernels/cuda/matrix_tile.h"

namespace conclave::DIALECT {

constexpr int walk_tiles = 2, walked = walk_tiles * tile_side;  // rows at a time
// Strides in shared memory, longer than a row by 16 bytes, so that rows begin at different banks.
template <int width>
constexpr int row_stride = width + 8;
constexpr int sum_stride = walked + 4, weight_stride = walked + 8;
// The memory that a warp has for itself, in bytes: sums of 16 x 32, weights of 16 x 32, a number for each
// row.
constexpr std::size_t sums_bytes = tile_side * sum_stride * sizeof(float),
                      weights_bytes = tile_side * weight_stride * sizeof(BFloat16),
                      factors_bytes = tile_side * sizeof(float);

/// `rows` rows of a head from `first` on into shared memory, zero from row `end` on; to be waited for.
template <int width>
DEVICE void copy_rows(BFloat16* tile, int rows, const BFloat16* head, std::int64_t stride, std::int64_t first,
                      std::int64_t end) {
  constexpr int piece = 16 / sizeof(BFloat16), pieces = width / piece;
  for (int i = thread_index(); i < rows * pieces; i += block_size()) {
    const int row = i / pieces, column = i % pieces * piece;
    BFloat16* to = tile + row * row_stride<width> + column;
    if (first + row < end) {
      copy_async(to, head + (first + row) * stride + column);
    } else {
      UNROLL for (int c = 0; c < piece; ++c) to[c] = BFloat16{0};
    }
  }
}

/// sums [16, 32] = own [16, width] walk [32, width]^T
template <int width>
DEVICE void multiply_rows(SumTile (&sums)[walk_tiles], const BFloat16* own, const BFloat16* walk) {
  UNROLL for (SumTile& sum : sums) clear_tile(sum);
  UNROLL for (int k = 0; k < width; k += tile_side) {
    LeftTile left;
    load_tile(left, own + k, row_stride<width>);
    UNROLL for (int j = 0; j < walk_tiles; ++j) {
      RightTile<TileOrder::columns> right;
      load_tile(right, walk + j * tile_side * row_stride<width> + k, row_stride<width>);
      multiply_add(sums[j], left, right);
    }
  }
}

/// sums [16, width] += weights [16, 32] walk [32, width]
template <int width>
DEVICE void add_weighted(SumTile (&sums)[width / tile_side], const BFloat16* weights, const BFloat16* walk) {
  UNROLL for (int k = 0; k < walk_tiles; ++k) {
    LeftTile left;
    load_tile(left, weights + k * tile_side, weight_stride);
    UNROLL for (int c = 0; c < width / tile_side; ++c) {
      RightTile<TileOrder::rows> right;
      load_tile(right, walk + k * tile_side * row_stride<width> + c * tile_side, row_stride<width>);
      multiply_add(sums[c], left, right);
    }
  }
}

DEVICE void store_sums(float* scratch, const SumTile (&sums)[walk_tiles]) {
  UNROLL for (int j = 0; j < walk_tiles; ++j) store_tile(scratch + j * tile_side, sums[j], sum_stride);
}

/// Rows first .. first + 15 of a head = factor * sums, those that there are.
template <int width>
DEVICE void store_rows(BFloat16* head, std::int64_t stride, std::int64_t first, std::int64_t end,
                       const SumTile (&sums)[width / tile_side], float factor, float* scratch) {
  UNROLL for (int c = 0; c < width / tile_side; c += walk_tiles) {
    sync_warp();
    UNROLL for (int j = 0; j < walk_tiles; ++j) store_tile(scratch + j * tile_side, sums[c + j], sum_stride);
    sync_warp();
    static_assert(walked == warp_size);
    for (int row = 0; row < tile_side && first + row < end; ++row)
      store(head + (first + row) * stride + c * tile_side + lane_index(),
            factor * scratch[row * sum_stride + lane_index()]);
  }
}

/// All that queries first .. end - 1 see, and what lies between; found by a warp.
DEVICE KeySpan seen_by_warp(const SeenKeys& seen, std::int64_t first, std::int64_t end) {
  KeySpan span = no_keys();
  for (std::int64_t t = first + lane_index(); t < end; t += warp_size) span.extend(seen_by(seen, t));
  return {-warp_reduce(-span.first, Maximum{}), warp_reduce(span.end, Maximum{})};
}

/// log_sum_exp [sequences, heads, queries]
template <int width>
KERNEL attention_tiles_kernel(AttentionSizes z, const BFloat16* query, const BFloat16* key,
                              const BFloat16* value, const std::int32_t* first_keys,
                              const std::int32_t* last_keys, std::int64_t tiles, BFloat16* out,
                              float* log_sum_exp) {
  SHARED_DYNAMIC(BFloat16, memory);
  constexpr int stride = row_stride<width>, stage = 2 * walked * stride;
  const int warps = block_size() / warp_size, own = warps * tile_side;
  BFloat16 *q = memory, *walk = q + own * stride;  // two stages of keys and values
  BFloat16* weights = walk + 2 * stage + warp_index() * tile_side * weight_stride;
  float* scores = reinterpret_cast<float*>(walk + 2 * stage + warps * tile_side * weight_stride) +
                  warp_index() * tile_side * (sum_stride + 1);
  float* factors = scores + tile_side * sum_stride;
  const std::int64_t s = block_index() / tiles / z.heads, h = block_index() / tiles % z.heads;
  const std::int64_t begin = (tiles - 1 - block_index() % tiles) * own;  // those with most keys come first
  const SeenKeys seen(z, first_keys, last_keys, s);
  const KeySpan span = seen_by_warp(seen, begin, begin + own);
  const std::int64_t q_at = z.query_at(s, h), k_at = z.key_at(s, h / (z.heads / z.kv_heads));
  const auto copy_walk = [&](int to, std::int64_t first) {
    copy_rows<width>(walk + to * stage, walked, key + k_at, z.key_stride(), first, span.end);
    copy_rows<width>(walk + to * stage + walked * stride, walked, value + k_at, z.key_stride(), first,
                     span.end);
  };

  // Two lanes share a row: its columns of one parity each.
  const std::int64_t own_first = begin + warp_index() * tile_side;
  const int row = lane_index() / 2, parity = lane_index() % 2;
  const std::int64_t t = own_first + row;
  const KeySpan of_row = seen_by(seen, t), of_warp = seen_by_warp(seen, own_first, own_first + tile_side);
  float largest = -std::numeric_limits<float>::infinity(), total = 0;
  SumTile sums[width / tile_side];
  UNROLL for (SumTile& sum : sums) clear_tile(sum);
  const TileRows rows = rows_of_tile(scores);

  copy_rows<width>(q, own, query + q_at, z.query_stride(), begin, z.queries);
  if (span.first < span.end) copy_walk(0, span.first);
  commit_copies();
  int now = 0;
  for (std::int64_t first = span.first; first < span.end; first += walked, now = 1 - now) {
    if (first + walked < span.end) copy_walk(1 - now, first + walked);
    commit_copies();
    wait_copies<1>();
    sync_block();
    if (of_warp.meets(first, first + walked)) {
      SumTile products[walk_tiles];
      multiply_rows<width>(products, q + warp_index() * tile_side * stride, walk + now * stage);
      store_sums(scores, products);
      sync_warp();
      float score[tile_side], highest = largest, added = 0;
      UNROLL for (int n = 0; n < tile_side; ++n) {
        score[n] = of_row.has(first + 2 * n + parity) ? z.scale * scores[row * sum_stride + 2 * n + parity]
                                                      : -std::numeric_limits<float>::infinity();
        highest = highest < score[n] ? score[n] : highest;
      }
      highest = warp_reduce(highest, Maximum{}, 2);
      UNROLL for (int n = 0; n < tile_side; ++n) {
        const float weight =
            score[n] == -std::numeric_limits<float>::infinity() ? 0 : exponential(score[n] - highest);
        store(weights + row * weight_stride + 2 * n + parity, weight);
        added += weight;
      }
      // Nothing seen so far: the sums are zero, and must not become 0 * NaN.
      const float keep = total == 0 ? 1 : exponential(largest - highest);
      total = total * keep + warp_reduce(added, Sum{}, 2);
      largest = highest;
      if (parity == 0) factors[row] = keep;
      sync_warp();
      UNROLL for (SumTile& sum : sums) scale_rows(sum, rows, factors);
      add_weighted<width>(sums, weights, walk + now * stage + walked * stride);
    }
    sync_block();
  }
  if (parity == 0) {
    factors[row] = total == 0 ? 0 : 1 / total;  // a query that sees no key has summed up nothing
    if (t < z.queries) log_sum_exp[(s * z.heads + h) * z.queries + t] = largest + std::log(total);
  }
  sync_warp();
  UNROLL for (SumTile& sum : sums) scale_rows(sum, rows, factors);
  store_rows<width>(out + q_at, z.query_stride(), own_first, z.queries, sums, 1, scores);
}

}  // namespace conclave::DIALECT
