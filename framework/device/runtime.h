// The CUDA runtime: CUDA's own for nvcc, and its stand-in for the host compiler. Code written against it
// stands in namespace conclave::DIALECT and is compiled twice; one program can hold both.
#pragma once

#ifdef __CUDACC__
#include "framework/device/runtime_cuda.cuh"
#else
#include "framework/device/stand_in/cuda_runtime.h"
#endif

#include "framework/base/error.h"

namespace conclave::DIALECT {

/// Every call of the CUDA runtime passes through here: "cuda: cudaMemcpyAsync: an illegal memory access ...".
inline void check_cuda(cudaError_t status, const char* call, Fault fault = Fault::machine) {
  check(status == cudaSuccess, fault, device_name, ": ", call, ": ", cudaGetErrorString(status));
}

}  // namespace conclave::DIALECT
