// The GPU of this process: one stream that all kernels and copies are ordered by, memory from a cache over
// cudaMalloc. A copy to the host waits for the stream; nothing else does. Its twin without CUDA is
// no_cuda.cpp.
#include <cuda_runtime.h>

#include "framework/base/allocation_size.h"
#include "framework/device/block_cache.h"
#include "framework/device/cuda_check.cuh"
#include "framework/device/device.h"

namespace conclave {
namespace {

using cuda::check_cuda;

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int gpu) {
    check_cuda(cudaSetDevice(gpu), "cudaSetDevice");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  DeviceKind kind() const override { return DeviceKind::cuda; }
  const char* name() const override { return "cuda"; }
  void* stream() const override { return stream_; }

  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    const std::size_t size = allocation_size(bytes);
    return std::make_shared<Buffer>(*this, cache_.take(size), size);
  }

  void copy(void* to, const void* from, std::size_t bytes) override {
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_),
               "cudaMemcpyAsync on the device");
  }
  void copy_from_host(void* to, const void* host, std::size_t bytes) override {
    check_cuda(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream_),
               "cudaMemcpyAsync to the device");
    count_host_wait();
    // Of pageable memory CUDA has taken its own copy by now; pinned memory would still be read.
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  void copy_to_host(void* host, const void* from, std::size_t bytes) override {
    check_cuda(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_),
               "cudaMemcpyAsync to the host");
    count_host_wait();
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  void fill_zero(void* data, std::size_t bytes) override {
    check_cuda(cudaMemsetAsync(data, 0, bytes, stream_), "cudaMemsetAsync");
  }
  MemoryUse memory_use() const override { return cache_.use(); }
  void reset_peak() override { cache_.reset_peak(); }

 private:
  void release(void* data, std::size_t bytes) override { cache_.give_back(data, bytes); }

  static void* obtain(std::size_t bytes) {
    void* block = nullptr;
    const cudaError_t status = cudaMalloc(&block, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // taken notice of
      return nullptr;
    }
    check_cuda(status, "cudaMalloc");
    return block;
  }

  cudaStream_t stream_ = nullptr;
  // cudaFree waits for all work on the device, so that nothing still reads what is discarded.
  BlockCache cache_{"cuda", obtain,
                    [](void* block, std::size_t) { check_cuda(cudaFree(block), "cudaFree"); }};
};

CudaDevice* bind(int local_rank) {
  int gpus = 0;
  const cudaError_t status = cudaGetDeviceCount(&gpus);
  check(status == cudaSuccess && gpus > 0, Fault::request,
        "training.device: cuda came, but this machine has no usable GPU (",
        status == cudaSuccess ? "none found" : cudaGetErrorString(status),
        "); use cpu, or start where there is one");
  check(local_rank >= 0 && local_rank < gpus, Fault::request,
        "training.device: cuda came, but this node has ", gpus, " GPUs and rank ", local_rank,
        " of the node needs one of its own; start at most ", gpus, " ranks per node");
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, local_rank), "cudaGetDeviceProperties");
  check(properties.major * 10 + properties.minor >= 75, Fault::request, "training.device: cuda came, but ",
        properties.name, " has compute capability ", properties.major, ".", properties.minor,
        ", 7.5 is the least");
  return new CudaDevice(local_rank);
}

}  // namespace

Device& cuda_device(int local_rank) {
  static CudaDevice* device = bind(local_rank);
  return *device;
}

}  // namespace conclave
