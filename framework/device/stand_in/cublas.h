// A stand-in for cuBLAS and cuBLASLt on the emulated device, over products of the CPU. It has only the calls
// that the kernels make, with NVIDIA's names, arguments and layouts (columns first). It refuses what they
// refuse: arrays on the wrong side, pointers less aligned than promised, sizes that do not fit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framework/device/stand_in/cuda_runtime.h"

namespace conclave::emulated {

enum cublasStatus_t { CUBLAS_STATUS_SUCCESS, CUBLAS_STATUS_INVALID_VALUE, CUBLAS_STATUS_NOT_SUPPORTED };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_16BF };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };

const char* cublasGetStatusString(cublasStatus_t status);

// --- cuBLAS

struct CublasContext;
using cublasHandle_t = CublasContext*;

cublasStatus_t cublasCreate(cublasHandle_t* handle);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
/// C [m, n] = alpha op(A) op(B) + beta C, columns first; alpha and beta are float on the host.
cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t transpose_a,
                               cublasOperation_t transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                               const void* alpha, const void* a, cudaDataType_t a_type, std::int64_t a_stride,
                               const void* b, cudaDataType_t b_type, std::int64_t b_stride, const void* beta,
                               void* c, cudaDataType_t c_type, std::int64_t c_stride,
                               cublasComputeType_t compute, cublasGemmAlgo_t algorithm);
/// Computes group after group of products. Sizes and factors lie on the host; a, b and c are arrays of
/// pointers on the device. All three types are the same.
cublasStatus_t cublasGemmGroupedBatchedEx_64(cublasHandle_t handle, const cublasOperation_t transpose_a[],
                                             const cublasOperation_t transpose_b[], const std::int64_t m[],
                                             const std::int64_t n[], const std::int64_t k[],
                                             const void* alpha, const void* const a[], cudaDataType_t a_type,
                                             const std::int64_t a_stride[], const void* const b[],
                                             cudaDataType_t b_type, const std::int64_t b_stride[],
                                             const void* beta, void* const c[], cudaDataType_t c_type,
                                             const std::int64_t c_stride[], std::int64_t groups,
                                             const std::int64_t group_size[], cublasComputeType_t compute);

// --- cuBLASLt

struct CublasLtContext;
struct CublasLtProduct;
struct CublasLtLayout;
struct CublasLtPreference;
using cublasLtHandle_t = CublasLtContext*;
using cublasLtMatmulDesc_t = CublasLtProduct*;
using cublasLtMatrixLayout_t = CublasLtLayout*;
using cublasLtMatmulPreference_t = CublasLtPreference*;

enum cublasLtMatmulDescAttributes_t { CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB };
enum cublasLtMatmulPreferenceAttributes_t {
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
  CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};
enum cublasLtReductionScheme_t : std::uint32_t { CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2 };

/// An algorithm is right for the product that it was found for, and for matrices of this alignment.
struct cublasLtMatmulAlgo_t {
  std::uint64_t product;
  std::uint32_t alignment[4];
};
struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  std::size_t workspaceSize;
  cublasStatus_t state;
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle);
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale_type);
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product);
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes);
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type,
                                          std::uint64_t rows, std::uint64_t columns, std::int64_t stride);
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout);
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made);
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference);
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes);
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int* count);
/// D = alpha op(A) op(B) + beta C, where C and D are the same matrix.
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream);

}  // namespace conclave::emulated
