// HOST_DEVICE marks scalar formulas that serve the CPU, the GPU and the emulated device from one text.
#pragma once

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif
