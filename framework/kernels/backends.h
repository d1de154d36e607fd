// The backends by name; kernels_of(tensor) finds the right one.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

const Kernels& cpu_kernels();
const Kernels& emulated_kernels();
/// The kernels of a CountingDevice.
const Kernels& counting_kernels();
/// Fault::request in a build without CUDA.
const Kernels& cuda_kernels();

}  // namespace conclave
