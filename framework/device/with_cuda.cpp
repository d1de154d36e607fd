// A build with CUDA: the twin of no_cuda.cpp.
#include "framework/device/gpu_device.h"

namespace conclave {

Device& cuda_device(int local_rank) {
  return cuda::this_gpu(local_rank);
}

}  // namespace conclave
