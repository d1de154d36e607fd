#include <cstring>

#include "framework/base/allocation_size.h"
#include "framework/base/error.h"
#include "framework/device/block_cache.h"
#include "framework/device/device.h"
#include "framework/device/emulated_memory.h"
#include "framework/device/sanitizer.h"

namespace conclave {
namespace {

constexpr int no_number =
    0xFF;  // this byte over and over is NaN in every floating-point type, and -1 in integers

class EmulatedDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::emulated; }
  const char* name() const override { return "emulated"; }

  std::shared_ptr<Buffer> allocate(std::size_t bytes) override {
    const EmulatedAccess access;
    const std::size_t size = allocation_size(bytes);
    void* block = cache_.take(size);
    sanitizer::allow(block, bytes);
    if (bytes > 0) std::memset(block, no_number, bytes);
    return std::make_shared<Buffer>(*this, block, size);
  }

  void copy(void* to, const void* from, std::size_t bytes) override {
    check_place("copy", "target", to, bytes, Place::device);
    check_place("copy", "source", from, bytes, Place::device);
    move(to, from, bytes);
  }
  void copy_from_host(void* to, const void* host, std::size_t bytes) override {
    check_place("copy_from_host", "target", to, bytes, Place::device);
    check_place("copy_from_host", "source", host, bytes, Place::host);
    move(to, host, bytes);
  }
  void copy_to_host(void* host, const void* from, std::size_t bytes) override {
    check_place("copy_to_host", "target", host, bytes, Place::host);
    check_place("copy_to_host", "source", from, bytes, Place::device);
    if (bytes > 0) count_host_wait();
    move(host, from, bytes);
  }
  void fill_zero(void* data, std::size_t bytes) override {
    check_place("fill_zero", "target", data, bytes, Place::device);
    const EmulatedAccess access;
    if (bytes > 0) std::memset(data, 0, bytes);
  }
  MemoryUse memory_use() const override { return cache_.use(); }
  void reset_peak() override { cache_.reset_peak(); }

 private:
  enum class Place { host, device };

  static void check_place(const char* where, const char* which, const void* begin, std::size_t bytes,
                          Place expected) {
    if (bytes == 0) return;
    const Place place = is_emulated_memory(begin, bytes) ? Place::device : Place::host;
    check(place == expected, "emulated: ", where, ": the ", which, " lies in the memory of the ",
          place == Place::host ? "host" : "device", ", expected the other");
  }

  static void move(void* to, const void* from, std::size_t bytes) {
    const EmulatedAccess access;
    if (bytes > 0) std::memcpy(to, from, bytes);
  }

  void release(void* data, std::size_t bytes) override {
    sanitizer::forbid(data, bytes);
    cache_.give_back(data, bytes);
  }

  BlockCache cache_{"emulated", new_emulated_block, [](void*, std::size_t) {}};
};

}  // namespace

Device& emulated_device() {
  static EmulatedDevice* device = new EmulatedDevice;
  return *device;
}

}  // namespace conclave
