// NCCL, as its own header for nvcc and as its stand-in for the host compiler (see
// framework/device/runtime.h).
#pragma once

#ifdef __CUDACC__
#include <nccl.h>
#else
#include "parallel/nccl/stand_in.h"
#endif

#include "framework/device/runtime.h"
