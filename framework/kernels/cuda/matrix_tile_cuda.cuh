// matrix_tile.h as CUDA's warp matrix functions. GPUs before sm_80 have none for bfloat16; they never take
// this path (attention_tiles.cu), but a build for them compiles it.
#pragma once

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

#include <cuda_bf16.h>
#include <mma.h>

namespace conclave::cuda {

namespace wmma = nvcuda::wmma;

struct LeftTile {
  wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> part;
};
template <TileOrder order>
struct RightTile {
  using Layout = std::conditional_t<order == TileOrder::rows, wmma::row_major, wmma::col_major>;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, Layout> part;
};
struct SumTile {
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> part;
};
/// The row of each element that this lane holds of a sum.
struct TileRows {
  int row[8];
};

template <class Tile>
DEVICE void load_tile(Tile& tile, const BFloat16* from, int stride) {
  wmma::load_matrix_sync(tile.part, reinterpret_cast<const __nv_bfloat16*>(from),
                         static_cast<unsigned>(stride));
}
DEVICE void clear_tile(SumTile& sum) {
  wmma::fill_fragment(sum.part, 0.0f);
}
template <TileOrder order>
DEVICE void multiply_add(SumTile& sum, const LeftTile& left, const RightTile<order>& right) {
  wmma::mma_sync(sum.part, left.part, right.part, sum.part);
}
DEVICE void store_tile(float* to, const SumTile& sum, int stride) {
  wmma::store_matrix_sync(to, sum.part, static_cast<unsigned>(stride), wmma::mem_row_major);
}
/// CUDA leaves open where elements lie, so it is asked: a tile whose elements are their rows. The scratch is
/// the warp's, 256 floats of shared memory.
DEVICE TileRows rows_of_tile(float* scratch) {
  SumTile numbered;
  static_assert(decltype(numbered.part)::num_elements == 8);
  for (int i = lane_index(); i < 256; i += warp_size) scratch[i] = static_cast<float>(i / 16);
  sync_warp();
  wmma::load_matrix_sync(numbered.part, scratch, 16u, wmma::mem_row_major);
  TileRows rows;
  UNROLL for (int i = 0; i < 8; ++i) rows.row[i] = static_cast<int>(numbered.part.x[i]);
  sync_warp();
  return rows;
}
DEVICE void scale_rows(SumTile& sum, const TileRows& rows, const float* factors) {
  UNROLL for (int i = 0; i < 8; ++i) sum.part.x[i] *= factors[rows.row[i]];
}

}  // namespace conclave::cuda

#else
#include "framework/kernels/cuda/matrix_tile_plain.cuh"
#endif
