#include "framework/device/block_cache.h"

#include <algorithm>

#include "framework/base/error.h"

namespace conclave {

void* BlockCache::take(std::size_t bytes, MemoryPurpose purpose) {
  const std::lock_guard lock(mutex_);
  void* block = nullptr;
  if (!waiting_.empty()) collect(Patience::ask);
  auto& cached = free_[bytes];
  if (!cached.empty()) {
    block = cached.back();
    cached.pop_back();
  } else {
    block = obtain_(bytes);
    if (block == nullptr) {
      collect(Patience::wait);
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
  MemoryUse::OfPurpose& of = use_.of[static_cast<std::size_t>(purpose)];
  of.live += bytes;
  of.peak = std::max(of.peak, of.live);
  return block;
}

void BlockCache::give_back(void* block, std::size_t bytes, MemoryPurpose purpose,
                           std::vector<std::shared_ptr<Event>> events) {
  const std::lock_guard lock(mutex_);
  use_.live -= bytes;
  use_.of[static_cast<std::size_t>(purpose)].live -= bytes;
  if (events.empty())
    free_[bytes].push_back(block);
  else
    waiting_.push_back({block, bytes, std::move(events)});
}

MemoryUse BlockCache::use() const {
  const std::lock_guard lock(mutex_);
  return use_;
}

void BlockCache::reset_peak() {
  const std::lock_guard lock(mutex_);
  use_.peak = use_.live;
  for (MemoryUse::OfPurpose& of : use_.of) of.peak = of.live;
}

void BlockCache::collect(Patience patience) {
  std::erase_if(waiting_, [&](Waiting& entry) {
    for (const std::shared_ptr<Event>& event : entry.events) {
      if (patience == Patience::wait) event->wait();
      if (!event->passed()) return false;
    }
    free_[entry.bytes].push_back(entry.block);
    return true;
  });
}

void BlockCache::discard_cached() {
  for (auto& [bytes, blocks] : free_) {
    for (void* block : blocks) discard_(block, bytes);
    use_.held -= bytes * blocks.size();
    blocks.clear();
  }
}

}  // namespace conclave
