// BlockCache: blocks of a device's memory that buffers gave back, by size, for the next buffer of that size.
// One stream computes, so a block may be handed on before the device is done with it: its next use comes
// later in the same stream.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
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
  /// after everything cached was discarded.
  void* take(std::size_t bytes);
  void give_back(void* block, std::size_t bytes);

  MemoryUse use() const;
  void reset_peak();

 private:
  void discard_cached();

  const char* device_;
  std::function<void*(std::size_t)> obtain_;
  std::function<void(void*, std::size_t)> discard_;
  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryUse use_;
};

}  // namespace conclave
