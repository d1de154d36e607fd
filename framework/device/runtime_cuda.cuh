// CUDA's own runtime. Not a .h file: it needs CUDA to compile.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "framework/device/device.h"

#define DIALECT cuda

namespace conclave::cuda {

constexpr DeviceKind device_kind = DeviceKind::cuda;
constexpr const char* device_name = "cuda";

/// The stand-in acts when a block becomes a buffer, and when it no longer is one; a GPU does nothing.
inline void begin_buffer(void*, std::size_t, cudaStream_t) {}
inline void end_buffer(void*, std::size_t, cudaStream_t) {}

}  // namespace conclave::cuda
