// A build without CUDA: the twin of with_cuda.cpp.
#include "framework/base/error.h"
#include "framework/device/device.h"

namespace conclave {

Device& cuda_device(int) {
  fail(Fault::request,
       "training.device: cuda came, but this build has no CUDA; build with `cmake --preset cuda`, or "
       "use cpu");
}

}  // namespace conclave
