// Row-major matrix products on plain pointers for the CPU kernels: oneDNN's sgemm in float32, loops in
// float64. Called inside an OpenMP parallel region they use the calling thread alone, outside all threads.
#pragma once

#include <cstdint>

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

/// c [m, n] = alpha * op(a) [m, k] op(b) [k, n] + beta * c
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<float> a, Matrix<float> b,
              float beta, float* c, std::int64_t c_stride);
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, double alpha, Matrix<double> a,
              Matrix<double> b, double beta, double* c, std::int64_t c_stride);

}  // namespace conclave::cpu
