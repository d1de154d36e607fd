#include "framework/device/block_cache.h"

#include <algorithm>

#include "framework/base/error.h"

namespace conclave {

void* BlockCache::take(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  void* block = nullptr;
  auto& cached = free_[bytes];
  if (!cached.empty()) {
    block = cached.back();
    cached.pop_back();
  } else {
    block = obtain_(bytes);
    if (block == nullptr) {
      discard_cached();
      block = obtain_(bytes);
    }
    check(block != nullptr, Fault::machine, device_, ": no memory for a buffer of ", bytes, " bytes while ",
          use_.live,
          " bytes are in use; a smaller training.micro_batch_size or training.recompute=block needs less");
    use_.held += bytes;
  }
  use_.live += bytes;
  use_.peak = std::max(use_.peak, use_.live);
  return block;
}

void BlockCache::give_back(void* block, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  use_.live -= bytes;
  free_[bytes].push_back(block);
}

MemoryUse BlockCache::use() const {
  const std::lock_guard lock(mutex_);
  return use_;
}

void BlockCache::reset_peak() {
  const std::lock_guard lock(mutex_);
  use_.peak = use_.live;
}

void BlockCache::discard_cached() {
  for (auto& [bytes, blocks] : free_) {
    for (void* block : blocks) discard_(block, bytes);
    use_.held -= bytes * blocks.size();
    blocks.clear();
  }
}

}  // namespace conclave
