#include "framework/kernels/cpu/tile_product.h"

#include <algorithm>

#if defined(__x86_64__)
#include <cpuid.h>
#include <dnnl.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
// This file is compiled for every x86-64 processor; only one with AMX comes to these functions.
#define CONCLAVE_TILES                                                                      \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16"), \
                 always_inline)) inline
#define CONCLAVE_TILES_ENTRY \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands in its own headers for ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif

namespace conclave::cpu {

bool has_bfloat16_tiles() {
  static const bool found = why_no_tiles().empty();
  return found;
}

#if defined(__x86_64__)

std::string why_no_tiles() {
  static const std::string reason = [] {
    // Leaf 7 of CPUID, edx: AMX-BF16 and AMX-TILE.
    constexpr unsigned needed = 1u << 22 | 1u << 24;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & needed) != needed)
      return std::string("this processor has no AMX for bfloat16");
    for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
      constexpr auto amx = static_cast<unsigned>(dnnl_cpu_isa_avx512_core_amx);
      if (std::getenv(name) != nullptr && (static_cast<unsigned>(dnnl_get_effective_cpu_isa()) & amx) != amx)
        return std::string(name) + " hides AMX";
    }
    // Linux keeps tiles of a process only after this request (Documentation/arch/x86/xstate.rst).
    constexpr int request_permission = 0x1023, tile_data = 18;
    if (::syscall(SYS_arch_prctl, request_permission, tile_data) != 0)
      return std::string("this system does not let the process use AMX: ") + std::strerror(errno);
    return std::string();
  }();
  return reason;
}

namespace {

/// The sums of a product are taken over at most this many rows of b at a time: two panels of it fit the first
/// cache.
constexpr std::int64_t most_depth = 16;  // tiles
/// As many columns of b are packed at once as fit the second cache beside what else is read.
constexpr std::int64_t most_packed = 512 * 1024;  // numbers
constexpr std::int64_t fewest_packed = 64;

/// The transposed matrix of 16 x 16 pairs of numbers.
CONCLAVE_TILES void transpose_pairs(__m512i* r) {
  __m512i t[16], u[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // The lane l of u[4 i + c] holds column 4 l + c of the rows 4 i .. 4 i + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i even_low = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xdd);
    r[c] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    r[4 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    r[8 + c] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    r[12 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
}

/// The first `count` of 16 or of 32 numbers.
CONCLAVE_TILES __mmask32 first(std::int64_t count, std::int64_t of) {
  if (count <= 0) return 0;
  return count >= of ? (of == 32 ? ~__mmask32{0} : (__mmask32{1} << of) - 1) : (__mmask32{1} << count) - 1;
}

/// 16 pairs of rows, their numbers in turn: pair p of `from` [rows, columns] becomes row p.
CONCLAVE_TILES void take_pairs(const BFloat16* from, std::int64_t stride, std::int64_t rows,
                               std::int64_t columns, __m512i* to) {
  const auto mask = static_cast<__mmask16>(first(columns, 16));
  for (int p = 0; p < 16; ++p) {
    const __m256i even =
        2 * p < rows ? _mm256_maskz_loadu_epi16(mask, from + 2 * p * stride) : _mm256_setzero_si256();
    const __m256i odd = 2 * p + 1 < rows ? _mm256_maskz_loadu_epi16(mask, from + (2 * p + 1) * stride)
                                         : _mm256_setzero_si256();
    to[p] = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
  }
}

/// 16 rows of 32 numbers.
CONCLAVE_TILES void take_rows(const BFloat16* from, std::int64_t stride, std::int64_t rows,
                              std::int64_t columns, __m512i* to) {
  const __mmask32 mask = first(columns, 32);
  for (int i = 0; i < 16; ++i)
    to[i] = i < rows ? _mm512_maskz_loadu_epi16(mask, from + i * stride) : _mm512_setzero_si512();
}

CONCLAVE_TILES void put(const __m512i* rows, Tile& to) {
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to.numbers + i * 32, rows[i]);
}

/// Tiles of b: op(b) from row k and column n on, of which `rows` and `columns` are there.
CONCLAVE_TILES void pack_b(const Matrix<BFloat16>& b, std::int64_t k, std::int64_t n, std::int64_t rows,
                           std::int64_t columns, Tile& to) {
  __m512i r[16];
  if (b.transpose == Transpose::no) {
    take_pairs(b.data + k * b.stride + n, b.stride, rows, columns, r);
  } else {
    take_rows(b.data + n * b.stride + k, b.stride, columns, rows, r);
    transpose_pairs(r);
  }
  put(r, to);
}

/// Tiles of a: op(a) from row m and column k on, of which `rows` and `columns` are there.
CONCLAVE_TILES void pack_a(const Matrix<BFloat16>& a, std::int64_t m, std::int64_t k, std::int64_t rows,
                           std::int64_t columns, Tile& to) {
  __m512i r[16];
  if (a.transpose == Transpose::no) {
    take_rows(a.data + m * a.stride + k, a.stride, rows, columns, r);
  } else {
    take_pairs(a.data + k * a.stride + m, a.stride, columns, rows, r);
    transpose_pairs(r);
  }
  put(r, to);
}

/// Says how many rows the tiles of c and a hold: c 0 and 1 and a 4 those of the upper half of a block, c 2
/// and 3 and a 5 those of the lower half.
CONCLAVE_TILES void configure(std::int64_t rows) {
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
CONCLAVE_TILES void multiply_block(const TileRows& a, const Tile* b, std::int64_t depth, bool adds, float* c,
                                   std::int64_t c_stride) {
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
CONCLAVE_TILES void put_sixteen(__m512 sums, __mmask16 mask, bool adds, float* c) {
  if (adds) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sums);
  _mm512_mask_storeu_ps(c, mask, sums);
}
CONCLAVE_TILES void put_sixteen(__m512 sums, __mmask16 mask, bool adds, BFloat16* c) {
  if (adds) {
    const __m512i there = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, c)), 16);
    sums = _mm512_add_ps(_mm512_castsi512_ps(there), sums);
  }
  _mm256_mask_storeu_epi16(c, mask, (__m256i)_mm512_cvtneps_pbh(sums));
}

/// sums [rows, columns] into c, or added to what is there.
template <class C>
CONCLAVE_TILES void put_sums(const float* sums, std::int64_t sums_stride, std::int64_t rows,
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
  CONCLAVE_TILES TileRows pack(const Matrix<BFloat16>& a, std::int64_t m, std::int64_t rows, std::int64_t k,
                               std::int64_t columns, std::int64_t depth) {
    if (static_cast<std::int64_t>(tiles.size()) < 2 * depth)
      tiles.resize(static_cast<std::size_t>(2 * depth));
    for (std::int64_t half = 0; half * tile_rows < rows; ++half)
      for (std::int64_t q = 0; q < depth; ++q)
        pack_a(a, m + half * tile_rows, k + q * tile_depth, rows - half * tile_rows, columns - q * tile_depth,
               tiles[static_cast<std::size_t>(half * depth + q)]);
    return {tiles[0].numbers, rows > tile_rows ? tiles[static_cast<std::size_t>(depth)].numbers : nullptr,
            tile_depth, tile_rows * tile_depth};
  }
};

/// c (+)= op(a) b over at most most_depth tiles of b's rows.
template <class C>
CONCLAVE_TILES_ENTRY void multiply_rows(std::int64_t m, const Matrix<BFloat16>& a, std::int64_t a_column,
                                        const TileMatrix& packed, std::int64_t first_row, std::int64_t rows,
                                        std::int64_t first_column, std::int64_t columns, bool adds, C* c,
                                        std::int64_t c_stride) {
  thread_local PackedRows packed_rows;
  const std::int64_t depth = (rows + tile_depth - 1) / tile_depth;
  const bool lies_in_tiles =
      a.transpose == Transpose::no && rows % tile_depth == 0 && columns <= fewest_packed;
  Sums sums;
  std::int64_t configured = 0;
  for (std::int64_t i = 0; i < m; i += 2 * tile_rows) {
    const std::int64_t block = std::min(2 * tile_rows, m - i);
    TileRows of_a;
    if (lies_in_tiles) {
      const BFloat16* from = a.data + i * a.stride + a_column;
      of_a = {from, block > tile_rows ? from + tile_rows * a.stride : nullptr, a.stride, tile_depth};
    } else {
      of_a = packed_rows.pack(a, i, block, a_column, rows, depth);
    }
    // The compiler does not know that tiles are loaded from memory.
    asm volatile("" ::: "memory");
    if (configured != block) configure(configured = block);
    for (std::int64_t j = 0; j < columns; j += tile_columns) {
      const Tile* of_b = packed.panel((first_column + j) / tile_columns) + first_row / tile_depth * 2;
      C* to = c + i * c_stride + j;
      const std::int64_t width = std::min(tile_columns, columns - j);
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

CONCLAVE_TILES_ENTRY void round_sums(const float* sums, std::int64_t m, std::int64_t n, bool adds,
                                     BFloat16* c, std::int64_t c_stride) {
  for (std::int64_t i = 0; i < m; ++i) put_sums(sums + i * n, n, 1, n, adds, c + i * c_stride, c_stride);
}

CONCLAVE_TILES_ENTRY void pack_tiles(std::int64_t k, std::int64_t n, const Matrix<BFloat16>& b, Tile* to) {
  for (std::int64_t j = 0; j < n; j += tile_columns)
    for (std::int64_t i = 0; i < k; i += tile_depth)
      for (std::int64_t half = 0; half < tile_columns; half += tile_rows)
        pack_b(b, i, j + half, k - i, n - j - half, *to++);
}

}  // namespace

void TileMatrix::pack(std::int64_t k, std::int64_t n, const Matrix<BFloat16>& b) {
  k_ = k;
  n_ = n;
  const auto tiles = static_cast<std::size_t>((n + tile_columns - 1) / tile_columns * depth() * 2);
  if (tiles_.size() < tiles) tiles_.resize(tiles);
  pack_tiles(k, n, b, tiles_.data());
}

template <class C>
void multiply_on_tiles(std::int64_t m, const Matrix<BFloat16>& a, const TileMatrix& packed,
                       std::int64_t first_row, std::int64_t rows, std::int64_t first_column,
                       std::int64_t columns, float beta, C* c, std::int64_t c_stride) {
  multiply_rows(m, a, 0, packed, first_row, rows, first_column, columns, beta == 1, c, c_stride);
}

template <class C>
void multiply_on_tiles(std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                       const Matrix<BFloat16>& b, float beta, C* c, std::int64_t c_stride) {
  thread_local TileMatrix packed;
  const std::int64_t parts = (k + most_depth * tile_depth - 1) / (most_depth * tile_depth);
  if constexpr (!std::is_same_v<C, float>) {
    if (parts > 1) {
      // Sums of several parts are rounded once all the same.
      thread_local std::vector<float> sums;
      if (static_cast<std::int64_t>(sums.size()) < m * n) sums.resize(static_cast<std::size_t>(m * n));
      multiply_on_tiles(m, n, k, a, b, 0.0F, sums.data(), n);
      round_sums(sums.data(), m, n, beta == 1, c, c_stride);
      return;
    }
  }
  const std::int64_t depth = (k + tile_depth - 1) / tile_depth,
                     part = (depth + parts - 1) / parts * tile_depth;
  const std::int64_t columns = most_packed / part / tile_columns * tile_columns;
  for (std::int64_t begin = 0; begin < k; begin += part)
    for (std::int64_t j = 0; j < n; j += columns) {
      const std::int64_t rows = std::min(part, k - begin), width = std::min(columns, n - j);
      packed.pack(rows, width, from_column(from_row(b, begin), j));
      multiply_rows(m, a, begin, packed, 0, rows, 0, width, beta == 1 || begin > 0, c + j, c_stride);
    }
}

#else

bool has_bfloat16_tiles() {
  return false;
}
void TileMatrix::pack(std::int64_t, std::int64_t, const Matrix<BFloat16>&) {}
template <class C>
void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t, std::int64_t,
                       std::int64_t, std::int64_t, float, C*, std::int64_t) {
  fail(Fault::internal, "multiply_on_tiles: this processor has no tiles");
}
template <class C>
void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                       const Matrix<BFloat16>&, float, C*, std::int64_t) {
  fail(Fault::internal, "multiply_on_tiles: this processor has no tiles");
}

#endif

template void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t,
                                std::int64_t, std::int64_t, std::int64_t, float, float*, std::int64_t);
template void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t,
                                std::int64_t, std::int64_t, std::int64_t, float, BFloat16*, std::int64_t);
template void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                                const Matrix<BFloat16>&, float, float*, std::int64_t);
template void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                                const Matrix<BFloat16>&, float, BFloat16*, std::int64_t);

}  // namespace conclave::cpu
