// The two devices that one text makes (cuda/cuda_device.cu): CUDA's, in builds that have it, and its
// stand-in.
#pragma once

#include "framework/device/device.h"

namespace conclave::cuda {

/// cuda_device() gives this one.
Device& this_gpu(int local_rank);

}  // namespace conclave::cuda

namespace conclave::emulated {

/// emulated_device() gives this one.
Device& this_gpu(int local_rank);

}  // namespace conclave::emulated
