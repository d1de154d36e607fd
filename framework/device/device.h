// Device: where memory lives and kernels run. This is the seam between the CPU, CUDA and the emulated device.
// Buffers come from a caching allocator: a training step asks for the same sizes again and again.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace conclave {

/// `counting` is the device of framework/kernels/counting.
enum class DeviceKind { cpu, emulated, cuda, counting };

class Device;

/// MemoryPurpose says what memory is for; activations stands for whatever else a step computes.
enum class MemoryPurpose { parameters, gradients, optimizer, activations };
constexpr int memory_purposes = 4;
const char* name_of(MemoryPurpose purpose);

/// A block of device memory, given back to its device's cache when the last owner leaves.
class Buffer {
 public:
  Buffer(Device& device, void* data, std::size_t bytes, MemoryPurpose purpose)
      : device_(&device), data_(data), bytes_(bytes), purpose_(purpose) {}
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  Device& device() const { return *device_; }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  MemoryPurpose purpose() const { return purpose_; }

  /// Work on this stream, which is not Device::stream(), touches the buffer too. When the last owner leaves,
  /// the block waits for the work queued there before it is used again.
  void use_on(void* stream);
  const std::vector<void*>& streams() const { return streams_; }

 private:
  Device* device_;
  void* data_;
  std::size_t bytes_;
  MemoryPurpose purpose_;
  std::vector<void*> streams_;
};

/// MemoryUse counts the bytes that a device's allocator has handed out.
struct MemoryUse {
  std::size_t live = 0;  // in buffers now
  std::size_t peak = 0;  // the most that was live at once
  std::size_t held = 0;  // live, or cached for reuse
  struct OfPurpose {
    std::size_t live = 0, peak = 0;
  };
  std::array<OfPurpose, memory_purposes> of{};  // [purpose]; peaks need not have come at the same time
  const OfPurpose& operator[](MemoryPurpose purpose) const { return of[static_cast<std::size_t>(purpose)]; }
};

/// A point in a stream's work.
class Event {
 public:
  virtual ~Event() = default;
  /// True once the work before the event is done.
  virtual bool passed() = 0;
  /// The host waits until the event has passed.
  virtual void wait() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual const char* name() const = 0;

  /// A name that no other GPU has, since ranks must not share a GPU. Empty where sharing is fine.
  virtual std::string identity() const { return {}; }

  /// Uninitialised memory, aligned to 64 bytes. A request of zero bytes is fine.
  virtual std::shared_ptr<Buffer> allocate(std::size_t bytes,
                                           MemoryPurpose purpose = MemoryPurpose::activations) = 0;
  /// The same for integers, which a device that computes nothing holds nevertheless.
  virtual std::shared_ptr<Buffer> allocate_integers(std::size_t bytes, MemoryPurpose purpose) {
    return allocate(bytes, purpose);
  }
  /// False where kernels write no floating-point number, so that none needs to be drawn or moved.
  virtual bool computes() const { return true; }
  /// Copies within this device's memory.
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  virtual void copy_from_host(void* to, const void* host, std::size_t bytes) = 0;
  virtual void copy_to_host(void* host, const void* from, std::size_t bytes) = 0;
  virtual void fill_zero(void* data, std::size_t bytes) = 0;
  virtual MemoryUse memory_use() const = 0;
  virtual void reset_peak() = 0;
  /// How often the host has waited so far for work queued here, to read a result. It is 0 on the CPU, where
  /// nothing is queued.
  std::int64_t host_waits() const { return host_waits_; }

  /// Streams are queues of work that run beside each other, each in its own order. Kernels and copies are
  /// ordered by stream(); collectives run on communication_stream(). Both are null on the CPU, where work is
  /// done at return.
  virtual void* stream() const { return nullptr; }
  virtual void* communication_stream() const { return nullptr; }
  /// Marks the end of what is queued on the stream; null where nothing is ever queued.
  virtual std::shared_ptr<Event> record(void* /*stream*/) { return nullptr; }
  /// Work that is queued on the stream from now on runs after the event. The host does not wait.
  virtual void wait_on(void* /*stream*/, const std::shared_ptr<Event>& /*event*/) {}
  /// Sets a function that is called again and again while the host waits for stream(), and once after. It
  /// throws where the awaited work may never come. With null, nothing is called.
  virtual void watch_waiting(std::function<void()> /*watch*/) {}

 protected:
  friend class Buffer;
  virtual void release(const Buffer& buffer) = 0;
  void count_host_wait() { ++host_waits_; }

 private:
  std::atomic<std::int64_t> host_waits_ = 0;
};

/// The host's memory and cores; one for the whole process.
Device& cpu_device();
/// The device code of a GPU on the host's cores, made for tests. Its memory cannot be touched outside kernels
/// and copies, and new memory holds no numbers. Sanitizers see races and strides out of bounds.
Device& emulated_device();
/// The GPU of this process, bound by the first call. A process that sees one GPU gets it; else it gets the
/// one whose number is its own among the ranks of its node. Fault::request when this build has no CUDA or
/// this machine no GPU for it.
Device& cuda_device(int local_rank = 0);

}  // namespace conclave
