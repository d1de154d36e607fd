// BlockCache keeps blocks of a device's memory that buffers gave back, by size, for the next buffer of that
// size. The cache may hand a block on before the computing stream is done with it, as its next use comes
// later in the same stream. A block that other streams still use waits for them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "framework/device/device.h"

namespace conclave {

class BlockCache {
 public:
  /// obtain(bytes) gives memory of the device, or nullptr when there is none; discard(block, bytes) returns
  /// it.
  BlockCache(const char* device, std::function<void*(std::size_t)> obtain,
             std::function<void(void*, std::size_t)> discard)
      : device_(device), obtain_(std::move(obtain)), discard_(std::move(discard)) {}

  /// A block of exactly so many bytes, counted as live. Fault::machine when the device has none left, even
  /// after everything cached was waited for and discarded.
  void* take(std::size_t bytes, MemoryPurpose purpose);
  /// Takes the block back; it is not handed on before all of these events have passed.
  void give_back(void* block, std::size_t bytes, MemoryPurpose purpose,
                 std::vector<std::shared_ptr<Event>> events = {});

  MemoryUse use() const;
  void reset_peak();

 private:
  struct Waiting {
    void* block;
    std::size_t bytes;
    std::vector<std::shared_ptr<Event>> events;
  };

  /// Frees the waiting blocks whose events have passed; with Patience::wait the host waits for the others.
  enum class Patience { ask, wait };
  void collect(Patience patience);
  void discard_cached();

  const char* device_;
  std::function<void*(std::size_t)> obtain_;
  std::function<void(void*, std::size_t)> discard_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  std::vector<Waiting> waiting_;
  MemoryUse use_;
};

}  // namespace conclave
