// The dialect as CUDA. Each word is one of CUDA's, and compiles to nothing more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <cuda_pipeline_primitives.h>

#include "framework/device/runtime.h"

#define KERNEL static __global__ __launch_bounds__(block_threads, 1) void
#define DEVICE __device__ inline
#define UNROLL _Pragma("unroll")
#define SHARED(type, name, count) __shared__ type name[count]
#define SHARED_DYNAMIC(type, name)                                         \
  extern __shared__ __align__(128) unsigned char shared_bytes_of_launch[]; \
  type* const name = reinterpret_cast<type*>(shared_bytes_of_launch)

namespace conclave::cuda {

constexpr int warp_size = 32;
constexpr int block_threads = 256;
constexpr std::size_t library_workspace = std::size_t{32} << 20;  // bytes; what NVIDIA advises for sm_90

using Stream = cudaStream_t;

struct LaunchShape {
  std::int64_t blocks;
  int threads = block_threads;
  std::size_t shared_bytes = 0;
  void* stream = nullptr;
};

DEVICE int thread_index() {
  return static_cast<int>(threadIdx.x);
}
DEVICE std::int64_t block_index() {
  return blockIdx.x;
}
DEVICE int block_size() {
  return static_cast<int>(blockDim.x);
}
DEVICE std::int64_t block_count() {
  return gridDim.x;
}
DEVICE int lane_index() {
  return thread_index() % warp_size;
}
DEVICE int warp_index() {
  return thread_index() / warp_size;
}
DEVICE void sync_block() {
  __syncthreads();
}
DEVICE void sync_warp() {
  __syncwarp();
}
template <class T>
DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xFFFFFFFFu, value, lane);
}
template <class T>
DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}
/// GPUs before sm_80 copy at once.
template <class T>
DEVICE void copy_async(T* to, const T* from) {
  __pipeline_memcpy_async(to, from, 16);
}
DEVICE void commit_copies() {
  __pipeline_commit();
}
template <int pending>
DEVICE void wait_copies() {
  __pipeline_wait_prior(pending);
}
/// A word of the whole warp; the emulated device checks it.
DEVICE void all_lanes_call(const void*) {
  sync_warp();
}
DEVICE void atomic_add(std::int32_t* sum, std::int32_t value) {
  atomicAdd(sum, value);
}
DEVICE void atomic_add(std::int64_t* sum, std::int64_t value) {
  // Two's complement: the sum of signed numbers is that of their bits.
  atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(value));
}
/// Cosine and sine of turns * 2 pi.
DEVICE void cosine_sine_of_turns(float turns, float& cosine, float& sine) {
  sincospif(2 * turns, &sine, &cosine);
}

inline int attribute_of_gpu(cudaDeviceAttr attribute) {
  int gpu = 0, value = 0;
  check_cuda(cudaGetDevice(&gpu), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, gpu), "cudaDeviceGetAttribute");
  return value;
}
/// Dynamic shared memory that a block of this process' GPU can be given.
inline std::size_t most_shared_bytes() {
  static const int bytes = attribute_of_gpu(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return static_cast<std::size_t>(bytes);
}
/// True where it multiplies bfloat16 on tensor cores: from sm_80 on.
inline bool has_matrix_units() {
  static const int major = attribute_of_gpu(cudaDevAttrComputeCapabilityMajor);
  return major >= 8;
}

/// Queues the kernel on the stream; nothing for no blocks. Errors of the kernel itself come with a later
/// call.
template <class... Parameters>
void launch(const LaunchShape& shape, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  constexpr std::size_t free_of_asking = 48 * 1024;  // more must be asked for, and only some GPUs have it
  if (shape.blocks == 0) return;
  if (shape.shared_bytes > free_of_asking)
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)),
               "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
  kernel<<<dim3(static_cast<unsigned>(shape.blocks)), dim3(static_cast<unsigned>(shape.threads)),
           shape.shared_bytes, static_cast<Stream>(shape.stream)>>>(arguments...);
  check_cuda(cudaGetLastError(), "kernel launch");
}

}  // namespace conclave::cuda
