#include "framework/kernels/cpu/matrix_product.h"

#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <vector>

#include "framework/kernels/cpu/code_memory.h"
#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/parallel_error.h"
#include "framework/kernels/cpu/storage.h"

namespace conclave {
namespace cpu {

std::string matrix_library() {
  const dnnl_version_t& version = *dnnl_version();
  // Later instruction sets hold the bits of those before them (dnnl_types.h).
  const auto instructions = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  const auto has = [&](dnnl_cpu_isa_t set) { return (instructions & set) == static_cast<unsigned>(set); };
  const char* name = has(dnnl_cpu_isa_avx512_core_amx)    ? "AVX-512, BF16 and AMX"
                     : has(dnnl_cpu_isa_avx512_core_bf16) ? "AVX-512 and BF16"
                     : has(dnnl_cpu_isa_avx512_core_vnni) ? "AVX-512 and VNNI"
                     : has(dnnl_cpu_isa_avx512_core)      ? "AVX-512"
                     : has(dnnl_cpu_isa_avx2)             ? "AVX2"
                     : has(dnnl_cpu_isa_avx)              ? "AVX"
                                                          : "old instructions alone";
  return join_text("oneDNN ", version.major, ".", version.minor, ".", version.patch, " with ", name);
}

void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<float> a, Matrix<float> b,
              float beta, float* c, std::int64_t c_stride) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    // An empty sum: oneDNN leaves c as it is, or refuses the strides.
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) c[i * c_stride + j] = beta == 0 ? 0 : beta * c[i * c_stride + j];
    return;
  }
  // sgemm, not a primitive: experts see a new row count in almost every call, and a primitive costs 0.4 ms to
  // create.
  const dnnl_status_t status =
      dnnl_sgemm(a.transpose == Transpose::yes ? 'T' : 'N', b.transpose == Transpose::yes ? 'T' : 'N', m, n,
                 k, alpha, a.data, a.stride, b.data, b.stride, beta, c, c_stride);
  if (status != dnnl_success)
    fail(Fault::machine, "oneDNN: sgemm of ", m, " x ", n, " x ", k, " gave status ",
         static_cast<int>(status), lack_of_code_memory());
}

namespace {

// Products in float64: blocks of c stay in registers while the sum over k runs, in one order whatever the
// threads.
constexpr std::int64_t block_rows = 4, block_columns = 32, block_depth = 256;

/// c [rows, block_columns] += a [rows, depth] b [depth, block_columns], rows at most block_rows; a_step is
/// the distance between two rows of op(a), a_next that between two columns.
template <std::int64_t rows>
void add_block(std::int64_t depth, double alpha, const double* a, std::int64_t a_step, std::int64_t a_next,
               const double* b, std::int64_t columns, double* c, std::int64_t c_stride) {
  double sums[rows][block_columns] = {};
  for (std::int64_t r = 0; r < rows; ++r) std::copy_n(c + r * c_stride, columns, sums[r]);
  for (std::int64_t p = 0; p < depth; ++p)
    for (std::int64_t r = 0; r < rows; ++r) {
      const double factor = alpha * a[r * a_step + p * a_next];
#pragma omp simd
      for (std::int64_t j = 0; j < block_columns; ++j) sums[r][j] += factor * b[p * block_columns + j];
    }
  for (std::int64_t r = 0; r < rows; ++r) std::copy_n(sums[r], columns, c + r * c_stride);
}

/// The rows begin .. end-1 of c.
void multiply_rows(std::int64_t begin, std::int64_t end, std::int64_t n, std::int64_t k, double alpha,
                   const Matrix<double>& a, const Matrix<double>& b, double beta, double* c,
                   std::int64_t c_stride) {
  for (std::int64_t i = begin; i < end; ++i)
    for (std::int64_t j = 0; j < n; ++j) c[i * c_stride + j] = beta == 0 ? 0 : beta * c[i * c_stride + j];
  const bool a_lies = a.transpose == Transpose::no, b_lies = b.transpose == Transpose::no;
  const std::int64_t a_step = a_lies ? a.stride : 1, a_next = a_lies ? 1 : a.stride;
  std::vector<double> panel(static_cast<std::size_t>(std::min(block_depth, k) * block_columns));
  for (std::int64_t j = 0; j < n; j += block_columns)
    for (std::int64_t p = 0; p < k; p += block_depth) {
      const std::int64_t columns = std::min(block_columns, n - j), depth = std::min(block_depth, k - p);
      for (std::int64_t q = 0; q < depth; ++q)
        for (std::int64_t column = 0; column < columns; ++column)
          panel[static_cast<std::size_t>(q * block_columns + column)] =
              b.data[b_lies ? (p + q) * b.stride + j + column : (j + column) * b.stride + p + q];
      std::int64_t i = begin;
      const auto add = [&]<std::int64_t rows>(std::integral_constant<std::int64_t, rows>) {
        for (; i + rows <= end; i += rows)
          add_block<rows>(depth, alpha, a.data + i * a_step + p * a_next, a_step, a_next, panel.data(),
                          columns, c + i * c_stride + j, c_stride);
      };
      add(std::integral_constant<std::int64_t, block_rows>{});
      add(std::integral_constant<std::int64_t, 1>{});
    }
}

}  // namespace

void multiply(std::int64_t m, std::int64_t n, std::int64_t k, double alpha, Matrix<double> a,
              Matrix<double> b, double beta, double* c, std::int64_t c_stride) {
  const std::int64_t threads = omp_in_parallel() || m * n * k <= 100000 ? 1 : omp_get_max_threads();
  const std::int64_t share = ((m + threads - 1) / threads + block_rows - 1) / block_rows * block_rows;
  if (share >= m) return multiply_rows(0, m, n, k, alpha, a, b, beta, c, c_stride);
  ParallelError error;
#pragma omp parallel for schedule(static, 1)
  for (std::int64_t begin = 0; begin < m; begin += share)
    error.guard(
        [&] { multiply_rows(begin, std::min(begin + share, m), n, k, alpha, a, b, beta, c, c_stride); });
  error.rethrow();
}

}  // namespace cpu

namespace {

using cpu::Matrix;

/// A piece of one expert's product that one thread computes alone: products this small run up to 1.7 times
/// faster side by side than one after the other over all threads.
struct Piece {
  std::int64_t expert, begin, end;
};

/// Cuts the range [0, extent(e)) of every expert into pieces of at most `most`, largest experts spread by the
/// dynamic schedule of the caller.
template <class Extent>
std::vector<Piece> cut(std::int64_t experts, std::int64_t most, Extent extent) {
  std::vector<Piece> pieces;
  for (std::int64_t expert = 0; expert < experts; ++expert)
    for (std::int64_t begin = 0; begin < extent(expert); begin += most)
      pieces.push_back({expert, begin, std::min(begin + most, extent(expert))});
  return pieces;
}

constexpr std::int64_t rows_per_piece = 512;

template <class T>
cpu::Sum<T> beta_of(Write write) {
  return write == Write::accumulate ? 1 : 0;
}

/// Largest pieces first, so that what the last thread still has to do is small.
template <class Function>
void run(std::vector<Piece> pieces, Function&& function) {
  const auto size = [](const Piece& piece) { return piece.end - piece.begin; };
  std::stable_sort(pieces.begin(), pieces.end(),
                   [&](const Piece& a, const Piece& b) { return size(a) > size(b); });
  cpu::ParallelError error;
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t i = 0; i < pieces.size(); ++i) error.guard([&] { function(pieces[i]); });
  error.rethrow();
}

/// c = a b + beta c with a share of the rows for every thread: oneDNN's own division of a product among
/// threads costs up to a fifth where b is transposed. Products with few rows are left to it all the same, as
/// every share packs b anew.
void multiply_in_shares(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<float> a, Matrix<float> b,
                        float beta, float* c) {
  constexpr std::int64_t least_rows = 128, rows_of_tile = 16;
  const std::int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const std::int64_t share = ((m + threads - 1) / threads + rows_of_tile - 1) / rows_of_tile * rows_of_tile;
  if (threads == 1 || share < least_rows) return cpu::multiply(m, n, k, 1.0F, a, b, beta, c, n);
  cpu::ParallelError error;
#pragma omp parallel for schedule(static, 1)
  for (std::int64_t begin = 0; begin < m; begin += share)
    error.guard([&] {
      cpu::multiply(std::min(share, m - begin), n, k, 1.0F, cpu::from_row(a, begin), b, beta, c + begin * n,
                    n);
    });
  error.rethrow();
}

void gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b, const Tensor& c,
          Write write) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = transpose_a == Transpose::no ? a.dim(1) : a.dim(0);
  check_tensor(a, "gemm", "a", transpose_a == Transpose::no ? Shape{m, k} : Shape{k, m}, a.dtype());
  check_tensor(b, "gemm", "b", transpose_b == Transpose::no ? Shape{k, n} : Shape{n, k}, a.dtype());
  cpu::with_storage_type(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const Matrix<T> left{a.data<T>(), a.dim(1), transpose_a}, right{b.data<T>(), b.dim(1), transpose_b};
    if constexpr (std::is_same_v<T, float>) {
      multiply_in_shares(m, n, k, left, right, beta_of<T>(write), c.data<float>());
    } else {
      cpu::with_result_type<T>("gemm", c.dtype(), [&](auto result) {
        cpu::multiply(m, n, k, cpu::Sum<T>(1), left, right, beta_of<T>(write), c.data<decltype(result)>(), n);
      });
    }
  });
}

void grouped_linear(const Tensor& x, const Tensor& weight, const RowOffsets& offsets, const Tensor& y) {
  const std::int64_t experts = weight.dim(0), out = weight.dim(1), in = weight.dim(2);
  const std::int64_t* offset = offsets.data<std::int64_t>();
  const auto pieces = cut(experts, rows_per_piece, [&](std::int64_t e) { return offset[e + 1] - offset[e]; });
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    run(pieces, [&, px = x.data<T>(), pw = weight.data<T>(), py = y.data<T>()](const Piece& piece) {
      const std::int64_t row = offset[piece.expert] + piece.begin;
      cpu::multiply(piece.end - piece.begin, out, in, cpu::Sum<T>(1), Matrix<T>{px + row * in, in},
                    Matrix<T>{pw + piece.expert * out * in, in, Transpose::yes}, cpu::Sum<T>(0),
                    py + row * out, out);
    });
  });
}

void grouped_linear_dx(const Tensor& dy, const Tensor& weight, const RowOffsets& offsets, const Tensor& dx,
                       Write write) {
  const std::int64_t experts = weight.dim(0), out = weight.dim(1), in = weight.dim(2);
  const std::int64_t* offset = offsets.data<std::int64_t>();
  const auto pieces = cut(experts, rows_per_piece, [&](std::int64_t e) { return offset[e + 1] - offset[e]; });
  cpu::with_storage_type(dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    run(pieces, [&, pdy = dy.data<T>(), pw = weight.data<T>(), pdx = dx.data<T>()](const Piece& piece) {
      const std::int64_t row = offset[piece.expert] + piece.begin;
      cpu::multiply(piece.end - piece.begin, in, out, cpu::Sum<T>(1), Matrix<T>{pdy + row * out, out},
                    Matrix<T>{pw + piece.expert * out * in, in}, beta_of<T>(write), pdx + row * in, in);
    });
  });
}

void grouped_linear_dweight(const Tensor& dy, const Tensor& x, const RowOffsets& offsets,
                            const Tensor& dweight, Write write) {
  const std::int64_t experts = dweight.dim(0), out = dweight.dim(1), in = dweight.dim(2);
  const std::int64_t* offset = offsets.data<std::int64_t>();
  // Cut along the rows of the weight, never along the sum, so that the order of addition is fixed.
  const auto pieces = cut(experts, rows_per_piece, [&](std::int64_t) { return out; });
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    cpu::with_result_type<T>("grouped_linear_dweight", dweight.dtype(), [&](auto result) {
      using U = decltype(result);
      run(pieces, [&, pdy = dy.data<T>(), px = x.data<T>(), pdw = dweight.data<U>()](const Piece& piece) {
        const std::int64_t row = offset[piece.expert], rows = offset[piece.expert + 1] - row;
        U* target = pdw + (piece.expert * out + piece.begin) * in;
        if (rows == 0) {
          if (write == Write::overwrite) std::fill_n(target, (piece.end - piece.begin) * in, U{});
          return;
        }
        cpu::multiply(piece.end - piece.begin, in, rows, cpu::Sum<T>(1),
                      Matrix<T>{pdy + row * out + piece.begin, out, Transpose::yes},
                      Matrix<T>{px + row * in, in}, beta_of<T>(write), target, in);
      });
    });
  });
}

}  // namespace

void cpu::put_matrix_product(Kernels& kernels) {
  kernels.gemm = gemm;
  kernels.grouped_linear = grouped_linear;
  kernels.grouped_linear_dx = grouped_linear_dx;
  kernels.grouped_linear_dweight = grouped_linear_dweight;
}

}  // namespace conclave
