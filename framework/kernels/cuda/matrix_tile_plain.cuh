// matrix_tile.h in plain loops. Lane l owns half of row l / 2 of a sum and reads all that it needs for it, so
// that every element is read by some other lane than the one that wrote it: ThreadSanitizer sees a missing
// barrier.
#pragma once

#include <cstdint>

#include "framework/base/bfloat16.h"
#include "framework/kernels/cuda/dialect.h"

namespace conclave::DIALECT {

constexpr int tile_part = 8;  // columns of a lane

struct LeftTile {
  float row[16];
};
template <TileOrder order>
struct RightTile {
  float column[tile_part][16];
};
struct SumTile {
  float value[tile_part];
};
struct TileRows {};

DEVICE int row_of_lane() {
  return lane_index() / 2;
}
DEVICE int column_of_lane() {
  return lane_index() % 2 * tile_part;
}

DEVICE void load_tile(LeftTile& tile, const BFloat16* from, int stride) {
  all_lanes_call(from);
  for (int k = 0; k < 16; ++k) tile.row[k] = to_float(from[row_of_lane() * stride + k]);
}
template <TileOrder order>
DEVICE void load_tile(RightTile<order>& tile, const BFloat16* from, int stride) {
  all_lanes_call(from);
  for (int c = 0; c < tile_part; ++c)
    for (int k = 0; k < 16; ++k) {
      const int column = column_of_lane() + c;
      tile.column[c][k] =
          to_float(order == TileOrder::rows ? from[k * stride + column] : from[column * stride + k]);
    }
}
DEVICE void clear_tile(SumTile& sum) {
  for (float& value : sum.value) value = 0;
}
template <TileOrder order>
DEVICE void multiply_add(SumTile& sum, const LeftTile& left, const RightTile<order>& right) {
  for (int c = 0; c < tile_part; ++c)
    for (int k = 0; k < 16; ++k) sum.value[c] += left.row[k] * right.column[c][k];
}
DEVICE void store_tile(float* to, const SumTile& sum, int stride) {
  all_lanes_call(to);
  for (int c = 0; c < tile_part; ++c) to[row_of_lane() * stride + column_of_lane() + c] = sum.value[c];
}
DEVICE TileRows rows_of_tile(float* /*scratch*/) {
  return {};
}
DEVICE void scale_rows(SumTile& sum, const TileRows&, const float* factors) {
  for (float& value : sum.value) value *= factors[row_of_lane()];
}

}  // namespace conclave::DIALECT
