// The kernels of a GPU, by name. A build without CUDA has no_cuda.cpp instead.
#include "framework/kernels/backends.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave {

const Kernels& cuda_kernels() {
  static const Kernels kernels({cuda::put_all});
  return kernels;
}

}  // namespace conclave
