// CountingDevice is a device on which a step is run dry. It counts memory as every device does, computes
// nothing and holds no floating-point number of any size. Integers are real, since the host reads them: which
// experts tokens go to, how many rows travel. So the trainer of a job of thousands of ranks can take its step
// on a laptop.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>

#include "framework/device/device.h"

namespace conclave {

/// Says which experts tokens go to where no router computes. The list `tokens` [tokens] holds -1 for padding.
/// The list `chosen` [tokens, top_k] receives numbers below `experts`, all different for one token. Its
/// values for padding are not read.
using ExpertChoice = std::function<void(std::span<const std::int32_t> tokens, std::int64_t experts,
                                        std::span<std::int32_t> chosen)>;

/// Every expert is chosen as often, up to one, and so is every run of neighbouring experts.
ExpertChoice even_choice();
/// Tokens choose experts first .. first + count - 1 as far as these go, until `most` assignments went there;
/// all others go to the other experts evenly.
ExpertChoice crowded_choice(std::int64_t first, std::int64_t count,
                            std::int64_t most = std::numeric_limits<std::int64_t>::max());

class CountingDevice final : public Device {
 public:
  struct Options {
    ExpertChoice choice = even_choice();
    std::int64_t threads = 1;  // that kernels of the CPU, whose memory is counted, would work with
  };
  explicit CountingDevice(Options options);

  DeviceKind kind() const override { return DeviceKind::counting; }
  const char* name() const override { return "counting"; }
  bool computes() const override { return false; }
  const Options& options() const { return options_; }

  /// Up to a page, memory that may be read and written, zero at first. A larger request gets an address that
  /// nothing may touch. Copies from there bring zeros; copies to there and zero fills do nothing.
  std::shared_ptr<Buffer> allocate(std::size_t bytes, MemoryPurpose purpose) override;
  /// Memory of any size, zero at first.
  std::shared_ptr<Buffer> allocate_integers(std::size_t bytes, MemoryPurpose purpose) override;
  void copy(void* to, const void* from, std::size_t bytes) override;
  void copy_from_host(void* to, const void* host, std::size_t bytes) override { copy(to, host, bytes); }
  void copy_to_host(void* host, const void* from, std::size_t bytes) override { copy(host, from, bytes); }
  void fill_zero(void* data, std::size_t bytes) override;
  MemoryUse memory_use() const override { return use_; }
  void reset_peak() override;
  /// Live bytes as they were asked for, without what allocation_size() adds.
  std::size_t asked_for(MemoryPurpose purpose) const { return asked_[static_cast<std::size_t>(purpose)]; }

 private:
  std::shared_ptr<Buffer> hand_out(void* data, std::size_t bytes, MemoryPurpose purpose);
  void release(const Buffer& buffer) override;

  Options options_;
  std::uintptr_t next_address_;
  MemoryUse use_;
  std::array<std::size_t, memory_purposes> asked_{};
};

}  // namespace conclave
