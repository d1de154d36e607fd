// Parts of matrices, 16 by 16, that the lanes of a warp hold together: bfloat16 factors, float32 sums. No
// code may depend on how the elements lie among the lanes. All 32 lanes call, with the same arguments. A lane
// may read what other lanes wrote to shared memory only after sync_warp() or sync_block(). Tiles begin at
// multiples of 32 bytes, and a stride is a multiple of 16 bytes.
//
//   LeftTile, RightTile<order>, SumTile
//   load_tile(tile, from, stride)         order says whether from holds rows of the factor, or columns
//   clear_tile(sum), multiply_add(sum, left, right), store_tile(to, sum, stride)
//   rows_of_tile(scratch), scale_rows(sum, rows, factors)      row r times factors[r]
#pragma once

#include "framework/base/bfloat16.h"
#include "framework/kernels/cuda/dialect.h"

namespace conclave::DIALECT {
constexpr int tile_side = 16;
enum class TileOrder { rows, columns };
}  // namespace conclave::DIALECT

#ifdef __CUDACC__
#include "framework/kernels/cuda/matrix_tile_cuda.cuh"
#else
#include "framework/kernels/cuda/matrix_tile_plain.cuh"
#endif
