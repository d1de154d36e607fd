#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "framework/base/allocation_size.h"
#include "framework/device/block_cache.h"
#include "framework/device/device.h"

namespace conclave {

const char* name_of(MemoryPurpose purpose) {
  switch (purpose) {
    case MemoryPurpose::parameters:
      return "parameters";
    case MemoryPurpose::gradients:
      return "gradients";
    case MemoryPurpose::optimizer:
      return "optimizer";
    case MemoryPurpose::activations:
      return "activations";
  }
  return "unknown";
}

Buffer::~Buffer() {
  device_->release(*this);
}

void Buffer::use_on(void* stream) {
  if (std::find(streams_.begin(), streams_.end(), stream) == streams_.end()) streams_.push_back(stream);
}

namespace {

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::cpu; }
  const char* name() const override { return "cpu"; }

  std::shared_ptr<Buffer> allocate(std::size_t bytes, MemoryPurpose purpose) override {
    const std::size_t size = allocation_size(bytes);
    return std::make_shared<Buffer>(*this, cache_.take(size, purpose), size, purpose);
  }

  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void copy_from_host(void* to, const void* host, std::size_t bytes) override { copy(to, host, bytes); }
  void copy_to_host(void* host, const void* from, std::size_t bytes) override { copy(host, from, bytes); }
  void fill_zero(void* data, std::size_t bytes) override {
    if (bytes > 0) std::memset(data, 0, bytes);
  }
  MemoryUse memory_use() const override { return cache_.use(); }
  void reset_peak() override { cache_.reset_peak(); }

 private:
  static constexpr std::size_t alignment = 64;

  void release(const Buffer& buffer) override {
    cache_.give_back(buffer.data(), buffer.bytes(), buffer.purpose());
  }

  BlockCache cache_{"cpu", [](std::size_t size) { return std::aligned_alloc(alignment, size); },
                    [](void* block, std::size_t) { std::free(block); }};
};

}  // namespace

Device& cpu_device() {
  // Never destroyed: buffers in other statics may outlive any order of destruction.
  static CpuDevice* device = new CpuDevice;
  return *device;
}

}  // namespace conclave
