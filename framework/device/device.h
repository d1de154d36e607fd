// Device: where memory lives and kernels run. This is the seam between the CPU, CUDA and the emulated device.
// Buffers come from a caching allocator: a training step asks for the same sizes again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace conclave {

enum class DeviceKind { cpu };

class Device;

/// A block of device memory, given back to its device's cache when the last owner leaves.
class Buffer {
 public:
  Buffer(Device& device, void* data, std::size_t bytes) : device_(&device), data_(data), bytes_(bytes) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Device& device() const { return *device_; }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Device* device_;
  void* data_;
  std::size_t bytes_;
};

/// What a device's allocator has handed out, in bytes.
struct MemoryUse {
  std::size_t live = 0;  // in buffers now
  std::size_t peak = 0;  // the most that was live at once
  std::size_t held = 0;  // live, or cached for reuse
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual const char* name() const = 0;

  /// Uninitialised memory, aligned to 64 bytes. Zero bytes are fine.
  virtual std::shared_ptr<Buffer> allocate(std::size_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  virtual void copy_from_host(void* to, const void* host, std::size_t bytes) = 0;
  virtual void copy_to_host(void* host, const void* from, std::size_t bytes) = 0;
  virtual void fill_zero(void* data, std::size_t bytes) = 0;
  virtual MemoryUse memory_use() const = 0;
  virtual void reset_peak() = 0;

 protected:
  friend class Buffer;
  virtual void release(void* data, std::size_t bytes) = 0;
};

/// The host's memory and cores; one for the whole process.
Device& cpu_device();

}  // namespace conclave
