// Matrix products of a GPU through cuBLAS in float32, without TF32: nothing is rounded that the recipe did
// not ask for. Grouped products are one call per expert and wait once for the row counts. Its stand-in is
// matrix_product_emulated.cpp.
#include <cublas_v2.h>

#include "framework/kernels/backends.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::cuda {
namespace {

void check_cublas(cublasStatus_t status, const char* call) {
  check(status == CUBLAS_STATUS_SUCCESS, Fault::machine, "cublas: ", call, ": ",
        cublasGetStatusString(status));
}

cublasHandle_t handle_on(void* stream) {
  static cublasHandle_t handle = [] {
    cublasHandle_t created = nullptr;
    check_cublas(cublasCreate(&created), "cublasCreate");
    return created;
  }();
  check_cublas(cublasSetStream(handle, static_cast<cudaStream_t>(stream)), "cublasSetStream");
  return handle;
}

cublasOperation_t operation(Transpose transpose) {
  return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
}

/// c [m, n] = op(a) op(b), or +=, all row-major and dense. cuBLAS counts columns first, and a row-major
/// matrix is its transpose to it: so it is asked for c^T = op(b)^T op(a)^T.
void multiply(void* stream, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
              Transpose transpose_a, const float* b, Transpose transpose_b, float* c, Write write) {
  if (m == 0 || n == 0) return;
  const float one = 1, beta = write == Write::accumulate ? 1.0f : 0.0f;
  const std::int64_t a_width = transpose_a == Transpose::no ? k : m,
                     b_width = transpose_b == Transpose::no ? n : k;
  check_cublas(cublasSgemm_64(handle_on(stream), operation(transpose_b), operation(transpose_a), n, m, k,
                              &one, b, b_width > 0 ? b_width : 1, a, a_width > 0 ? a_width : 1, &beta, c, n),
               "cublasSgemm");
}

}  // namespace

void DeviceKernels::gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b,
                         const Tensor& c, Write write) const {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = transpose_a == Transpose::no ? a.dim(1) : a.dim(0);
  check_tensor(a, "gemm", "a", transpose_a == Transpose::no ? Shape{m, k} : Shape{k, m}, c.dtype());
  check_tensor(b, "gemm", "b", transpose_b == Transpose::no ? Shape{k, n} : Shape{n, k}, c.dtype());
  multiply(c.device().stream(), m, n, k, a.data<float>(), transpose_a, b.data<float>(), transpose_b,
           c.data<float>(), write);
}

void DeviceKernels::grouped_linear(const Tensor& x, const Tensor& weight, const Tensor& offsets,
                                   const Tensor& y) const {
  const std::int64_t out = weight.dim(1), in = weight.dim(2);
  const std::vector<std::int64_t> offset = offsets.to_host<std::int64_t>();
  for (std::size_t e = 0; e + 1 < offset.size(); ++e)
    multiply(y.device().stream(), offset[e + 1] - offset[e], out, in, x.data<float>() + offset[e] * in,
             Transpose::no, weight.data<float>() + static_cast<std::int64_t>(e) * out * in, Transpose::yes,
             y.data<float>() + offset[e] * out, Write::overwrite);
}

void DeviceKernels::grouped_linear_dx(const Tensor& dy, const Tensor& weight, const Tensor& offsets,
                                      const Tensor& dx, Write write) const {
  const std::int64_t out = weight.dim(1), in = weight.dim(2);
  const std::vector<std::int64_t> offset = offsets.to_host<std::int64_t>();
  for (std::size_t e = 0; e + 1 < offset.size(); ++e)
    multiply(dx.device().stream(), offset[e + 1] - offset[e], in, out, dy.data<float>() + offset[e] * out,
             Transpose::no, weight.data<float>() + static_cast<std::int64_t>(e) * out * in, Transpose::no,
             dx.data<float>() + offset[e] * in, write);
}

void DeviceKernels::grouped_linear_dweight(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                           const Tensor& dweight, Write write) const {
  const std::int64_t out = dweight.dim(1), in = dweight.dim(2);
  const std::vector<std::int64_t> offset = offsets.to_host<std::int64_t>();
  for (std::size_t e = 0; e + 1 < offset.size();
       ++e)  // of no rows: cuBLAS writes zeros, or leaves what there is
    multiply(dweight.device().stream(), out, in, offset[e + 1] - offset[e],
             dy.data<float>() + offset[e] * out, Transpose::yes, x.data<float>() + offset[e] * in,
             Transpose::no, dweight.data<float>() + static_cast<std::int64_t>(e) * out * in, write);
}

}  // namespace conclave::cuda

namespace conclave {

const Kernels& cuda_kernels() {
  static const cuda::DeviceKernels kernels;
  return kernels;
}

}  // namespace conclave
