#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "framework/base/allocation_size.h"
#include "framework/base/error.h"
#include "framework/device/device.h"

namespace conclave {

Buffer::~Buffer() {
  device_->release(data_, bytes_);
}

namespace {

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }
  const char* name() const override { return "cpu"; }

  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    const std::size_t size = allocation_size(bytes);
    const std::lock_guard lock(mutex_);
    void* data = nullptr;
    auto& cached = free_[size];
    if (!cached.empty()) {
      data = cached.back();
      cached.pop_back();
    } else {
      data = std::aligned_alloc(alignment, size);
      if (data == nullptr) {
        release_cache();
        data = std::aligned_alloc(alignment, size);
      }
      check(data != nullptr, Fault::machine, "cpu: no memory for a buffer of ", size, " bytes while ",
            use_.live,
            " bytes are in use; a smaller training.micro_batch_size or training.recompute=block needs less");
      use_.held += size;
    }
    use_.live += size;
    use_.peak = std::max(use_.peak, use_.live);
    return std::make_shared<Buffer>(*this, data, size);
  }

  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void copy_from_host(void* to, const void* host, std::size_t bytes) override { copy(to, host, bytes); }
  void copy_to_host(void* host, const void* from, std::size_t bytes) override { copy(host, from, bytes); }
  void fill_zero(void* data, std::size_t bytes) override {
    if (bytes > 0) std::memset(data, 0, bytes);
  }
  MemoryUse memory_use() const override {
    const std::lock_guard lock(mutex_);
    return use_;
  }
  void reset_peak() override {
    const std::lock_guard lock(mutex_);
    use_.peak = use_.live;
  }

 private:
  static constexpr std::size_t alignment = 64;

  void release(void* data, std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use_.live -= bytes;
    free_[bytes].push_back(data);
  }

  void release_cache() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) std::free(block);
      use_.held -= size * blocks.size();
      blocks.clear();
    }
  }

  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryUse use_;
};

}  // namespace

Device& cpu_device() {
  // Never destroyed: buffers in other statics may outlive any order of destruction.
  static CpuDevice* device = new CpuDevice;
  return *device;
}

}  // namespace conclave
