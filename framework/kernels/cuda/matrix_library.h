// cuBLAS and cuBLASLt, or the emulated device's stand-in for them, and what all of their callers share.
#pragma once

#ifdef __CUDACC__
#include <cublasLt.h>
#include <cublas_v2.h>
#else
#include "framework/device/stand_in/cublas.h"
#endif

#include <memory>

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

/// The process' handle of cuBLASLt. Like all that is made here it is never destroyed, as cuBLAS may be gone
/// at exit.
inline cublasLtHandle_t light_library() {
  static cublasLtHandle_t handle = [] {
    cublasLtHandle_t created = nullptr;
    check_cublas(cublasLtCreate(&created), "cublasLtCreate");
    return created;
  }();
  return handle;
}

/// The process' handle of cuBLAS, at the end of the device's stream and with a workspace of its own.
inline cublasHandle_t library_on(Device& device) {
  static cublasHandle_t handle = [] {
    cublasHandle_t created = nullptr;
    check_cublas(cublasCreate(&created), "cublasCreate");
    // Parts of a sum that was split are added in float32.
    check_cublas(cublasSetMathMode(
                     created, static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                                        CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
                 "cublasSetMathMode");
    return created;
  }();
  static const auto* workspace = new std::shared_ptr<Buffer>(device.allocate(library_workspace));
  check_cublas(cublasSetStream(handle, static_cast<Stream>(device.stream())), "cublasSetStream");
  // Setting a stream has taken the workspace away.
  check_cublas(cublasSetWorkspace(handle, (*workspace)->data(), library_workspace), "cublasSetWorkspace");
  return handle;
}

}  // namespace conclave::DIALECT
