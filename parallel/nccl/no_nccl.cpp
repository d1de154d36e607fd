// A build without CUDA: the twin of nccl_collectives.cu as CUDA. No device is there whose tensors could come.
#include "parallel/nccl/nccl_collectives.h"

namespace conclave::cuda {

std::unique_ptr<DeviceCollectives> nccl_collectives(Device&, const MeetingPlace& place) {
  fail(Fault::request, "a tensor on device cuda came to ", place.where,
       ", but this build has no NCCL; build with `cmake --preset cuda`");
}

void abort_nccl() {}

}  // namespace conclave::cuda
