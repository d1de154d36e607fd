// How matrices of bfloat16 become tiles (tile_product.h). Pairs of numbers, which a tile's row holds beside
// each other, are interleaved and transposed as 32-bit words.
#pragma once

#include <immintrin.h>

#include "framework/kernels/cpu/tile_product.h"

// Functions of processors with AMX. The rest of their files is compiled for every x86-64 processor.
#define CONCLAVE_AMX \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#define CONCLAVE_AMX_INLINE                                                                 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16"), \
                 always_inline)) inline
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands in its own headers for ours.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace conclave::cpu {

/// The transposed matrix of 16 x 16 pairs of numbers.
CONCLAVE_AMX_INLINE void transpose_pairs(__m512i* r) {
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
CONCLAVE_AMX_INLINE __mmask32 first(std::int64_t count, std::int64_t of) {
  if (count <= 0) return 0;
  return count >= of ? (of == 32 ? ~__mmask32{0} : (__mmask32{1} << of) - 1) : (__mmask32{1} << count) - 1;
}

/// 16 pairs of rows, their numbers in turn: pair p of `from` [rows, columns] becomes row p.
CONCLAVE_AMX_INLINE void take_pairs(const BFloat16* from, std::int64_t stride, std::int64_t rows,
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
CONCLAVE_AMX_INLINE void take_rows(const BFloat16* from, std::int64_t stride, std::int64_t rows,
                                   std::int64_t columns, __m512i* to) {
  const __mmask32 mask = first(columns, 32);
  for (int i = 0; i < 16; ++i)
    to[i] = i < rows ? _mm512_maskz_loadu_epi16(mask, from + i * stride) : _mm512_setzero_si512();
}

CONCLAVE_AMX_INLINE void put(const __m512i* rows, Tile& to) {
  for (int i = 0; i < 16; ++i) _mm512_store_si512(to.numbers + i * 32, rows[i]);
}

/// Tiles of b: op(b) from row k and column n on, of which `rows` and `columns` are there.
CONCLAVE_AMX_INLINE void pack_b(const Matrix<BFloat16>& b, std::int64_t k, std::int64_t n, std::int64_t rows,
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
CONCLAVE_AMX_INLINE void pack_a(const Matrix<BFloat16>& a, std::int64_t m, std::int64_t k, std::int64_t rows,
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

}  // namespace conclave::cpu
