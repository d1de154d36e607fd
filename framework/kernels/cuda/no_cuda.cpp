// A build without CUDA: the twin of cuda_kernels.cu.
#include "framework/kernels/backends.h"

namespace conclave {

const Kernels& cuda_kernels() {
  fail(Fault::request,
       "a tensor on device cuda came, but this build has no CUDA; build with `cmake --preset cuda`");
}

}  // namespace conclave
