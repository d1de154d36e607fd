// Products of bfloat16 matrices on AMX: eight registers of 16 rows x 64 bytes, and one instruction that adds
// the product of two of them to a third, in float32 (Intel Architecture Instruction Set Extensions, chapter
// "Intel AMX"). An expert comes with another number of rows in almost every call, which costs nothing here:
// no code is made for a size, and rows and strides are as they come.
// One thread computes a product. Its bits depend on k alone: cut m, or n at multiples of tile_columns, and
// every element stays what it was.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "framework/kernels/cpu/matrix_product.h"

namespace conclave::cpu {

/// True where the processor has AMX for bfloat16 and the system lets this process use it. ONEDNN_MAX_CPU_ISA,
/// which hides it from oneDNN, hides it here too.
bool has_bfloat16_tiles();
/// A clause that says why it is false, "this processor has no AMX for bfloat16"; "" where it is true.
std::string why_no_tiles();

constexpr std::int64_t tile_rows = 16;     // of a tile of a and c
constexpr std::int64_t tile_depth = 32;    // rows of b, in pairs, that one tile holds
constexpr std::int64_t tile_columns = 32;  // of c, two tiles beside each other: the width of a panel of b

/// 1 KB as a tile register holds it: 16 rows of 32 numbers.
struct alignas(64) Tile {
  BFloat16 numbers[tile_rows * tile_depth];
};

/// b [k, n] in the order in which products read it: panels of tile_columns columns, in each the rows from
/// above, tile_depth at a time, as two tiles; a tile's row holds two rows of b, their numbers in turn. Zeros
/// fill up k and n.
class TileMatrix {
 public:
  /// op(b) takes the place of what was here; memory only grows.
  void pack(std::int64_t k, std::int64_t n, const Matrix<BFloat16>& b);
  std::int64_t depth() const { return (k_ + tile_depth - 1) / tile_depth; }
  /// The tiles of the columns panel * tile_columns and following: [depth, 2].
  const Tile* panel(std::int64_t panel) const { return tiles_.data() + panel * depth() * 2; }

 private:
  std::vector<Tile> tiles_;
  std::int64_t k_ = 0;
};

/// c [m, columns] = op(a) [m, rows] b [rows, columns] + beta c, beta 0 or 1, where b is the part of `packed`
/// from row first_row and column first_column on, multiples of tile_depth and tile_columns. Sums are rounded
/// once where c is bfloat16.
template <class C>
void multiply_on_tiles(std::int64_t m, const Matrix<BFloat16>& a, const TileMatrix& packed,
                       std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                       std::int64_t columns, float beta, C* c, std::int64_t c_stride);

/// c [m, n] = op(a) [m, k] op(b) [k, n] + beta c, beta 0 or 1.
template <class C>
void multiply_on_tiles(std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                       const Matrix<BFloat16>& b, float beta, C* c, std::int64_t c_stride);

}  // namespace conclave::cpu
