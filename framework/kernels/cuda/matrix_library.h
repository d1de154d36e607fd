// cuBLAS and cuBLASLt, or the emulated device's stand-in for them, and what all of their callers share.
#pragma once

#ifdef __CUDACC__
#include <cublasLt.h>
#include <cublas_v2.h>
#else
#include "framework/device/stand_in/cublas.h"
#endif

#include "framework/kernels/cuda/dialect.h"
#include "framework/kernels/kernels.h"

namespace conclave::DIALECT {

/// Every call passes through here: "cublas: cublasLtMatmul: the functionality requested is not supported".
inline void check_cublas(cublasStatus_t status, const char* call) {
  check(status == CUBLAS_STATUS_SUCCESS, Fault::machine, "cublas: ", call, ": ",
        cublasGetStatusString(status));
}

inline cublasOperation_t operation(Transpose transpose) {
  return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
}

inline cudaDataType_t library_type(DType dtype) {
  check(dtype == DType::float32 || dtype == DType::bfloat16, Fault::request,
        "matrix products of a GPU take float32 and bfloat16, ", name_of(dtype),
        " came; train with training.precision: fp32 or bf16, or on device cpu");
  return dtype == DType::bfloat16 ? CUDA_R_16BF : CUDA_R_32F;
}

}  // namespace conclave::DIALECT
