// One way to check the CUDA runtime. Not a .h file: it needs CUDA to compile.
#pragma once

#include <cuda_runtime.h>

#include "framework/base/error.h"

namespace conclave::cuda {

/// Every call of the CUDA runtime passes through here: "cuda: cudaMemcpyAsync: an illegal memory access ...".
inline void check_cuda(cudaError_t status, const char* call, Fault fault = Fault::machine) {
  check(status == cudaSuccess, fault, "cuda: ", call, ": ", cudaGetErrorString(status));
}

}  // namespace conclave::cuda
