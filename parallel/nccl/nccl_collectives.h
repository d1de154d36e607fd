// One text makes these two implementations (nccl_collectives.cu): over NCCL, in builds with CUDA, and over
// its stand-in.
#pragma once

#include "parallel/device_collectives.h"

namespace conclave::cuda {

std::unique_ptr<DeviceCollectives> nccl_collectives(Device& device, const MeetingPlace& place);
void abort_nccl();

}  // namespace conclave::cuda

namespace conclave::emulated {

std::unique_ptr<DeviceCollectives> nccl_collectives(Device& device, const MeetingPlace& place);
void abort_nccl();

}  // namespace conclave::emulated
