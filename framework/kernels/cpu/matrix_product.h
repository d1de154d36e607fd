// Row-major matrix products on plain pointers for the CPU kernels. They are oneDNN's sgemm in float32 and
// loops in float64. bfloat16_products() says what they are in bfloat16. Inside an OpenMP parallel region they
// use the calling thread alone, outside all threads.
#pragma once

#include <cstdint>
#include <string>

#include "framework/kernels/kernels.h"

namespace conclave::cpu {

/// A matrix in memory: element (row, column) of op(matrix) lies at data[row * stride + column], or at
/// data[column * stride + row] when transposed.
template <class T>
struct Matrix {
  const T* data;
  std::int64_t stride;
  Transpose transpose = Transpose::no;
};

/// The rows of op(matrix) from this one on.
template <class T>
Matrix<T> from_row(const Matrix<T>& matrix, std::int64_t row) {
  return {matrix.data + (matrix.transpose == Transpose::no ? row * matrix.stride : row), matrix.stride,
          matrix.transpose};
}
/// The columns of op(matrix) from this one on.
template <class T>
Matrix<T> from_column(const Matrix<T>& matrix, std::int64_t column) {
  return {matrix.data + (matrix.transpose == Transpose::no ? column : column * matrix.stride), matrix.stride,
          matrix.transpose};
}

/// c [m, n] = alpha * op(a) [m, k] op(b) [k, n] + beta * c
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<float> a, Matrix<float> b,
              float beta, float* c, std::int64_t c_stride);
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, double alpha, Matrix<double> a,
              Matrix<double> b, double beta, double* c, std::int64_t c_stride);

/// Sums are in float32 and rounded once where c is bfloat16. alpha must be 1, beta 0 or 1.
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<BFloat16> a,
              Matrix<BFloat16> b, float beta, float* c, std::int64_t c_stride);
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<BFloat16> a,
              Matrix<BFloat16> b, float beta, BFloat16* c, std::int64_t c_stride);
/// True where oneDNN multiplies bfloat16 with instructions of this machine; else it would convert.
bool multiplies_bfloat16();
/// Says how bfloat16 matrices are multiplied here, and why not faster: "on AMX tiles", "by oneDNN's gemm:jit,
/// since this processor has no AMX".
std::string bfloat16_products();
/// The library that multiplies float32 matrices here, for reports: "oneDNN 2.6.3 with AVX-512".
std::string matrix_library();

}  // namespace conclave::cpu
