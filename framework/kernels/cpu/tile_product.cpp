#include "framework/kernels/cpu/tile_product.h"

#include <cpuid.h>
#include <dnnl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "framework/kernels/cpu/tile_packing.h"

namespace conclave::cpu {

bool has_bfloat16_tiles() {
  static const bool found = why_no_tiles().empty();
  return found;
}

std::string why_no_tiles() {
  static const std::string reason = [] {
    // Leaf 7 of CPUID, edx: AMX-BF16 and AMX-TILE.
    constexpr unsigned needed = 1u << 22 | 1u << 24;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & needed) != needed)
      return std::string("this processor has no AMX for bfloat16");
    // Besides AMX this holds the AVX-512 that packing and rounding need.
    constexpr auto all = static_cast<unsigned>(dnnl_cpu_isa_avx512_core_amx);
    const bool has_all = (static_cast<unsigned>(dnnl_get_effective_cpu_isa()) & all) == all;
    for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"})
      if (!has_all && std::getenv(name) != nullptr) return std::string(name) + " hides AMX";
    // Linux keeps tiles of a process only after this request (Documentation/arch/x86/xstate.rst).
    constexpr int request_permission = 0x1023, tile_data = 18;
    if (::syscall(SYS_arch_prctl, request_permission, tile_data) != 0)
      return std::string("this system does not let the process use AMX: ") + std::strerror(errno);
    if (!has_all) return std::string("this processor has AMX without the AVX-512 that belongs to it");
    return std::string();
  }();
  return reason;
}

namespace {

/// Sums are taken over at most so many rows of b at a time: two panels of it fit the first cache.
constexpr std::int64_t most_depth = 512;
/// As many columns of b are packed at once: with those rows they fit the second cache.
constexpr std::int64_t most_columns = 1024;
/// As many sums, or those of 128 rows, are kept beside a c of bfloat16 where they have several parts.
constexpr std::int64_t most_sums = 1 << 21;
/// A product with no more columns reads a as it lies; with more it is faster on packed rows.
constexpr std::int64_t few_columns = 64;

/// Says how many rows the tiles of c and a hold: c 0 and 1 and a 4 those of the upper half of a block, c 2
/// and 3 and a 5 those of the lower half.
CONCLAVE_AMX_INLINE void configure(std::int64_t rows) {
  struct alignas(64) {
    std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};
  } tiles;
  const auto upper = static_cast<std::uint8_t>(std::min(rows, tile_rows));
  const auto lower = static_cast<std::uint8_t>(std::max(rows - tile_rows, std::int64_t{1}));
  const std::uint8_t rows_of[] = {upper, upper, lower, lower, upper, lower, 16, 16};
  for (int i = 0; i < 8; ++i) {
    tiles.bytes[i] = 64;
    tiles.rows[i] = rows_of[i];
  }
  _tile_loadconfig(&tiles);
}

/// 16 or 32 rows of a: where they begin, how far one is from the next and a tile from the next.
struct TileRows {
  const BFloat16* upper;
  const BFloat16* lower;  // null: there are no more than 16
  std::int64_t stride, step;
};

/// c [32, 32] (+)= a b over `depth` tiles.
CONCLAVE_AMX_INLINE void multiply_block(const TileRows& a, const Tile* b, std::int64_t depth, bool adds,
                                        float* c, std::int64_t c_stride) {
  const std::int64_t c_bytes = c_stride * 4, a_bytes = a.stride * 2;
  float* lower_c = c + tile_rows * c_stride;
  if (adds) {
    _tile_loadd(0, c, c_bytes);
    _tile_loadd(1, c + 16, c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  if (a.lower == nullptr) {
    for (std::int64_t q = 0; q < depth; ++q) {
      _tile_stream_loadd(6, b + q * 2, 64);
      _tile_loadd(4, a.upper + q * a.step, a_bytes);
      _tile_stream_loadd(7, b + q * 2 + 1, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    return;
  }
  if (adds) {
    _tile_loadd(2, lower_c, c_bytes);
    _tile_loadd(3, lower_c + 16, c_bytes);
  } else {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t q = 0; q < depth; ++q) {
    _tile_stream_loadd(6, b + q * 2, 64);
    _tile_loadd(4, a.upper + q * a.step, a_bytes);
    _tile_stream_loadd(7, b + q * 2 + 1, 64);
    _tile_loadd(5, a.lower + q * a.step, a_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, c_bytes);
  _tile_stored(1, c + 16, c_bytes);
  _tile_stored(2, lower_c, c_bytes);
  _tile_stored(3, lower_c + 16, c_bytes);
}

/// The sums of a block beside c, where c is no place for whole tiles of them.
struct alignas(64) Sums {
  float numbers[2 * tile_rows * tile_columns];
};

/// Adds 16 sums to c, or puts them there.
CONCLAVE_AMX_INLINE void put_sixteen(__m512 sums, __mmask16 mask, bool adds, float* c) {
  if (adds) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sums);
  _mm512_mask_storeu_ps(c, mask, sums);
}
CONCLAVE_AMX_INLINE void put_sixteen(__m512 sums, __mmask16 mask, bool adds, BFloat16* c) {
  if (adds) {
    const __m512i there = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, c)), 16);
    sums = _mm512_add_ps(_mm512_castsi512_ps(there), sums);
  }
  _mm256_mask_storeu_epi16(c, mask, (__m256i)_mm512_cvtneps_pbh(sums));
}

/// sums [rows, columns] into c, or added to what is there.
template <class C>
CONCLAVE_AMX_INLINE void put_sums(const float* sums, std::int64_t sums_stride, std::int64_t rows,
                                  std::int64_t columns, bool adds, C* c, std::int64_t c_stride) {
  if constexpr (!std::is_same_v<C, float>) {
    if (!adds && columns == tile_columns) {
      for (std::int64_t i = 0; i < rows; ++i) {
        const float* from = sums + i * sums_stride;
        const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
        _mm512_storeu_si512(c + i * c_stride, (__m512i)rounded);
      }
      return;
    }
  }
  for (std::int64_t j = 0; j < columns; j += 16) {
    const auto mask = static_cast<__mmask16>(first(columns - j, 16));
    for (std::int64_t i = 0; i < rows; ++i)
      put_sixteen(_mm512_maskz_loadu_ps(mask, sums + i * sums_stride + j), mask, adds, c + i * c_stride + j);
  }
}

/// A block of a as tiles where it does not lie so in memory.
struct PackedRows {
  std::vector<Tile> tiles;
  CONCLAVE_AMX_INLINE TileRows pack(const Matrix<BFloat16>& a, std::int64_t m, std::int64_t rows,
                                    std::int64_t columns, std::int64_t depth) {
    if (static_cast<std::int64_t>(tiles.size()) < 2 * depth)
      tiles.resize(static_cast<std::size_t>(2 * depth));
    for (std::int64_t half = 0; half * tile_rows < rows; ++half)
      for (std::int64_t q = 0; q < depth; ++q)
        pack_a(a, m + half * tile_rows, q * tile_depth, rows - half * tile_rows, columns - q * tile_depth,
               tiles[static_cast<std::size_t>(half * depth + q)]);
    return {tiles[0].numbers, rows > tile_rows ? tiles[static_cast<std::size_t>(depth)].numbers : nullptr,
            tile_depth, tile_rows * tile_depth};
  }
};

/// c [m, columns] (+)= op(a) [m, rows] b [rows, columns], b a part of `packed`.
template <class C>
CONCLAVE_AMX void multiply_rows(std::int64_t m, const Matrix<BFloat16>& a, const TileMatrix& packed,
                                std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                                std::int64_t columns, bool adds, C* c, std::int64_t c_stride) {
  thread_local PackedRows packed_rows;
  const std::int64_t depth = (rows + tile_depth - 1) / tile_depth;
  const bool lies_in_tiles = a.transpose == Transpose::no && rows % tile_depth == 0 && columns <= few_columns;
  Sums sums;
  std::int64_t configured = 0;
  for (std::int64_t i = 0; i < m; i += 2 * tile_rows) {
    const std::int64_t block = std::min(2 * tile_rows, m - i);
    TileRows of_a;
    if (lies_in_tiles) {
      const BFloat16* from = a.data + i * a.stride;
      of_a = {from, block > tile_rows ? from + tile_rows * a.stride : nullptr, a.stride, tile_depth};
    } else {
      of_a = packed_rows.pack(a, i, block, rows, depth);
    }
    // The compiler does not know that tiles are loaded from memory.
    asm volatile("" ::: "memory");
    if (configured != block) configure(configured = block);
    for (std::int64_t j = 0; j < columns; j += tile_columns) {
      const Tile* of_b = packed.panel((first_column + j) / tile_columns) + first_row / tile_depth * 2;
      const std::int64_t width = std::min(tile_columns, columns - j);
      C* to = c + i * c_stride + j;
      if constexpr (std::is_same_v<C, float>) {
        if (width == tile_columns) {
          multiply_block(of_a, of_b, depth, adds, to, c_stride);
          continue;
        }
      }
      multiply_block(of_a, of_b, depth, false, sums.numbers, tile_columns);
      put_sums(sums.numbers, tile_columns, block, width, adds, to, c_stride);
    }
  }
  _tile_release();
}

/// sums [m, n], rounded, into c, or added to it before.
CONCLAVE_AMX void round_sums(const float* sums, std::int64_t m, std::int64_t n, bool adds, BFloat16* c,
                             std::int64_t c_stride) {
  for (std::int64_t i = 0; i < m; ++i) put_sums(sums + i * n, n, 1, n, adds, c + i * c_stride, c_stride);
}

CONCLAVE_AMX void pack_tiles(std::int64_t k, std::int64_t n, const Matrix<BFloat16>& b, Tile* to) {
  for (std::int64_t j = 0; j < n; j += tile_columns)
    for (std::int64_t i = 0; i < k; i += tile_depth)
      for (std::int64_t half = 0; half < tile_columns; half += tile_rows)
        pack_b(b, i, j + half, k - i, n - j - half, *to++);
}

}  // namespace

void TileMatrix::pack(std::int64_t k, std::int64_t n, const Matrix<BFloat16>& b) {
  k_ = k;
  const auto tiles = static_cast<std::size_t>((n + tile_columns - 1) / tile_columns * depth() * 2);
  if (tiles_.size() < tiles) tiles_.resize(tiles);
  pack_tiles(k, n, b, tiles_.data());
}

template <class C>
void multiply_on_tiles(std::int64_t m, const Matrix<BFloat16>& a, const TileMatrix& packed,
                       std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                       std::int64_t columns, float beta, C* c, std::int64_t c_stride) {
  multiply_rows(m, a, packed, first_row, rows, first_column, columns, beta == 1, c, c_stride);
}

template <class C>
void multiply_on_tiles(std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                       const Matrix<BFloat16>& b, float beta, C* c, std::int64_t c_stride) {
  thread_local TileMatrix packed;
  if constexpr (!std::is_same_v<C, float>) {
    if (k > most_depth) {
      // Sums of several parts are rounded once all the same.
      thread_local std::vector<float> sums;
      const std::int64_t rows = std::max(most_sums / n, std::int64_t{128});
      sums.resize(static_cast<std::size_t>(std::min(rows, m) * n));
      for (std::int64_t i = 0; i < m; i += rows) {
        multiply_on_tiles(std::min(rows, m - i), n, k, from_row(a, i), b, 0.0F, sums.data(), n);
        round_sums(sums.data(), std::min(rows, m - i), n, beta == 1, c + i * c_stride, c_stride);
      }
      return;
    }
  }
  for (std::int64_t p = 0; p < k; p += most_depth)
    for (std::int64_t j = 0; j < n; j += most_columns) {
      const std::int64_t rows = std::min(most_depth, k - p), columns = std::min(most_columns, n - j);
      packed.pack(rows, columns, from_column(from_row(b, p), j));
      multiply_rows(m, from_column(a, p), packed, 0, rows, 0, columns, beta == 1 || p > 0, c + j, c_stride);
    }
}

template void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t,
                                std::int64_t, std::int64_t, std::int64_t, float, float*, std::int64_t);
template void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t,
                                std::int64_t, std::int64_t, std::int64_t, float, BFloat16*, std::int64_t);
template void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                                const Matrix<BFloat16>&, float, float*, std::int64_t);
template void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                                const Matrix<BFloat16>&, float, BFloat16*, std::int64_t);

}  // namespace conclave::cpu
