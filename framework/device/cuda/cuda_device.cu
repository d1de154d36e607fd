// The GPU of this process, and the emulated one: a stream that kernels and copies are ordered by, one that
// collectives are, memory from a cache over cudaMalloc. A copy to the host waits for its stream. What goes to
// the device passes through pinned memory, so that the host waits only where very much of it is under way.
#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include "framework/base/allocation_size.h"
#include "framework/device/block_cache.h"
#include "framework/device/gpu_device.h"
#include "framework/device/runtime.h"

namespace conclave::DIALECT {
namespace {

class GpuEvent final : public Event {
 public:
  GpuEvent() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~GpuEvent() override { cudaEventDestroy(event_); }
  GpuEvent(const GpuEvent&) = delete;
  GpuEvent& operator=(const GpuEvent&) = delete;

  void record(void* stream) {
    check_cuda(cudaEventRecord(event_, static_cast<cudaStream_t>(stream)), "cudaEventRecord");
  }
  bool passed() override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check_cuda(status, "cudaEventQuery");
    return true;
  }
  void wait() override { check_cuda(cudaEventSynchronize(event_), "cudaEventSynchronize"); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Pinned memory in blocks of powers of two, those of a size in turn; a block is used again when the copy
/// that used it last is done. While none is, another one is made, up to a number of each size.
class PinnedBlocks {
 public:
  static constexpr std::size_t least_bytes = 16 * 1024, most_bytes = 4 * 1024 * 1024;

  struct Block {
    void* data = nullptr;
    GpuEvent done;  // to be recorded after the copy
  };

  /// For at most most_bytes. `wait` is called with the event of the oldest block when all are in use.
  template <class Wait>
  Block& next(std::size_t bytes, Wait&& wait) {
    const std::size_t size = std::max(std::bit_ceil(bytes), least_bytes);
    std::deque<std::unique_ptr<Block>>& blocks = blocks_[size];
    if (blocks.empty() || !blocks.front()->done.passed()) {
      if (blocks.size() < most_blocks(size)) {
        auto made = std::make_unique<Block>();
        check_cuda(cudaMallocHost(&made->data, size), "cudaMallocHost");
        blocks.push_front(std::move(made));
      } else {
        wait(blocks.front()->done);
      }
    }
    blocks.push_back(std::move(blocks.front()));
    blocks.pop_front();
    return *blocks.back();
  }

 private:
  /// 16 MiB of a size, or fewer where that would be more than 256 blocks.
  static constexpr std::size_t most_blocks(std::size_t size) {
    return std::min<std::size_t>(16 * 1024 * 1024 / size, 256);
  }

  std::map<std::size_t, std::deque<std::unique_ptr<Block>>> blocks_;  // the one used longest ago in front
};

class GpuDevice final : public Device {
 public:
  GpuDevice(int gpu, const cudaUUID_t& uuid) {
    for (const char byte : uuid.bytes) {
      constexpr char digits[] = "0123456789abcdef";
      identity_ += digits[static_cast<unsigned char>(byte) >> 4];
      identity_ += digits[static_cast<unsigned char>(byte) & 15];
    }
    if (identity_.find_first_not_of('0') == std::string::npos) identity_.clear();
    check_cuda(cudaSetDevice(gpu), "cudaSetDevice");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check_cuda(cudaStreamCreateWithFlags(&communication_stream_, cudaStreamNonBlocking),
               "cudaStreamCreateWithFlags");
  }
  DeviceKind kind() const override { return device_kind; }
  const char* name() const override { return device_name; }
  std::string identity() const override { return identity_; }
  void* stream() const override { return stream_; }
  void* communication_stream() const override { return communication_stream_; }

  std::shared_ptr<Event> record(void* stream) override {
    auto event = std::make_shared<GpuEvent>();
    event->record(stream);
    return event;
  }
  void wait_on(void* stream, const std::shared_ptr<Event>& event) override {
    check_cuda(
        cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<const GpuEvent&>(*event).get(), 0),
        "cudaStreamWaitEvent");
  }

  std::shared_ptr<Buffer> allocate(std::size_t bytes, MemoryPurpose purpose) override {
    const std::size_t size = allocation_size(bytes);
    void* block = cache_.take(size, purpose);
    begin_buffer(block, bytes, stream_);
    return std::make_shared<Buffer>(*this, block, size, purpose);
  }

  void copy(void* to, const void* from, std::size_t bytes) override {
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_),
               "cudaMemcpyAsync on the device");
  }
  void copy_from_host(void* to, const void* host, std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    for (std::size_t begin = 0; begin < bytes; begin += PinnedBlocks::most_bytes) {
      const std::size_t piece = std::min(bytes - begin, PinnedBlocks::most_bytes);
      PinnedBlocks::Block& block = next_block(piece);
      std::memcpy(block.data, static_cast<const std::byte*>(host) + begin, piece);
      check_cuda(cudaMemcpyAsync(static_cast<std::byte*>(to) + begin, block.data, piece,
                                 cudaMemcpyHostToDevice, stream_),
                 "cudaMemcpyAsync to the device");
      block.done.record(stream_);
    }
  }
  void copy_to_host(void* host, const void* from, std::size_t bytes) override {
    if (bytes == 0) return;
    if (bytes <= PinnedBlocks::least_bytes) {
      const std::lock_guard lock(mutex_);
      PinnedBlocks::Block& block = next_block(bytes);
      copy_from_device(block.data, from, bytes);
      block.done.record(stream_);
      wait_for(block.done);
      std::memcpy(host, block.data, bytes);
      return;
    }
    // A copy to pageable memory returns when it is done; where what comes before it never ends, nobody could
    // be asked, so that is waited for first.
    GpuEvent before;
    before.record(stream_);
    wait_for(before);
    copy_from_device(host, from, bytes);
    check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");  // should `host` be pinned
  }
  void fill_zero(void* data, std::size_t bytes) override {
    check_cuda(cudaMemsetAsync(data, 0, bytes, stream_), "cudaMemsetAsync");
  }
  void watch_waiting(std::function<void()> watch) override { watch_ = std::move(watch); }
  MemoryUse memory_use() const override { return cache_.use(); }
  void reset_peak() override { cache_.reset_peak(); }

 private:
  void release(const Buffer& buffer) override {
    std::vector<std::shared_ptr<Event>> events;
    for (void* stream : buffer.streams()) events.push_back(record(stream));
    if (events.empty()) end_buffer(buffer.data(), buffer.bytes(), stream_);  // else somebody still reads it
    cache_.give_back(buffer.data(), buffer.bytes(), buffer.purpose(), std::move(events));
  }

  void copy_from_device(void* host, const void* from, std::size_t bytes) {
    check_cuda(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_),
               "cudaMemcpyAsync to the host");
  }
  PinnedBlocks::Block& next_block(std::size_t bytes) {
    return pinned_.next(bytes, [this](GpuEvent& done) { wait_for(done); });
  }
  /// Every wait of the host for the stream that computes: counted, and watched where somebody watches.
  void wait_for(GpuEvent& event) {
    count_host_wait();
    if (!watch_) return event.wait();
    while (!event.passed()) watch_();
    watch_();
  }

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

  std::string identity_;
  cudaStream_t stream_ = nullptr, communication_stream_ = nullptr;
  std::function<void()> watch_;
  std::mutex mutex_;  // of the pinned blocks
  PinnedBlocks pinned_;
  // cudaFree waits for all work on the device, so that nothing still reads what is discarded.
  BlockCache cache_{device_name, obtain,
                    [](void* block, std::size_t) { check_cuda(cudaFree(block), "cudaFree"); }};
};

GpuDevice* bind(int local_rank) {
  int gpus = 0;
  const cudaError_t status = cudaGetDeviceCount(&gpus);
  check(status == cudaSuccess && gpus > 0, Fault::request, "training.device: ", device_name,
        " came, but this machine has no usable GPU (",
        status == cudaSuccess ? "none found" : cudaGetErrorString(status),
        "); use cpu, or start where there is one");
  // Schedulers like to show each rank one GPU of its own.
  const int gpu = gpus == 1 ? 0 : local_rank;
  check(gpu >= 0 && gpu < gpus, Fault::request, "training.device: ", device_name, " came, but this node has ",
        gpus, " GPUs and rank ", local_rank, " of the node needs one of its own; start at most ", gpus,
        " ranks per node");
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, gpu), "cudaGetDeviceProperties");
  check(properties.major * 10 + properties.minor >= 75, Fault::request, "training.device: ", device_name,
        " came, but ", properties.name, " has compute capability ", properties.major, ".", properties.minor,
        ", 7.5 is the least");
  return new GpuDevice(gpu, properties.uuid);
}

}  // namespace

Device& this_gpu(int local_rank) {
  // Never destroyed: buffers in other statics may outlive any order of destruction.
  static GpuDevice* device = bind(local_rank);
  return *device;
}

}  // namespace conclave::DIALECT
