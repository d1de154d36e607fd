#include "framework/kernels/cuda/block_runner.h"

#include <sys/mman.h>

#include <cstring>
#include <utility>

#include "framework/base/error.h"
#include "framework/device/sanitizer.h"

namespace conclave::emulated {
namespace {

constexpr int no_number = 0xFF;  // NaN in every floating-point type
constexpr std::size_t shared_bytes = std::size_t{4} << 20, gap_bytes = 64;
constexpr auto relaxed = std::memory_order_relaxed;

thread_local BlockRunner* runner_of_this_thread = nullptr;

std::byte* memory_without_numbers(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(memory != MAP_FAILED, Fault::machine, "emulated: no room for shared memory");
  std::memset(memory, no_number, bytes);
  sanitizer::forbid(memory, bytes);
  return static_cast<std::byte*>(memory);
}

}  // namespace

BlockRunner::BlockRunner()
    : shared_(memory_without_numbers(shared_bytes)),
      dynamic_(memory_without_numbers(most_dynamic + gap_bytes)) {
  runner_of_this_thread = this;
}

BlockRunner& BlockRunner::of_this_thread() {
  return *runner_of_this_thread;
}

int BlockRunner::thread_index() const {
  return current().index;
}

void BlockRunner::be_a_thread() {
  for (;;) {
    Thread& self = current();
    sanitizer::acquires(&begin_token_);
    self.block_phase = self.warp_phase = self.exchange_phase = 0;
    self.copies.clear();
    self.batches.clear();
    try {
      (*body_.load(relaxed))();
    } catch (...) {
      if (!failed_.exchange(true, relaxed)) error_ = std::current_exception();
    }
    sanitizer::releases(&end_token_);
    wait_at(self, State::ended);
  }
}

void BlockRunner::wait_at(Thread& thread, State place) {
  thread.state.store(place, relaxed);
  thread.fiber.leave();
}

void BlockRunner::sync_block() {
  Thread& self = current();
  // Two tokens in turn: a thread that is already at the next barrier must not seem to come before one that is
  // not.
  char* token = &block_tokens_[self.block_phase++ % 2];
  sanitizer::releases(token);
  wait_at(self, State::at_block_barrier);
  sanitizer::acquires(token);
}

void BlockRunner::sync_warp() {
  Thread& self = current();
  char* token = &warp_tokens_[static_cast<std::size_t>(self.index / warp_size)][self.warp_phase++ % 2];
  sanitizer::releases(token);
  wait_at(self, State::at_warp_barrier);
  sanitizer::acquires(token);
}

std::uint64_t BlockRunner::exchange(std::uint64_t bits, int lane) {
  check(lane >= 0 && lane < warp_size, "emulated: a shuffle asks for lane ", lane);
  Thread& self = current();
  const std::size_t turn = self.exchange_phase++ % 2;
  self.offered[turn].store(bits, relaxed);
  sanitizer::releases(&abandoned_token_);  // acquired by give_up() alone
  wait_at(self, State::at_exchange);
  return threads_[static_cast<std::size_t>(self.index / warp_size * warp_size + lane)]->offered[turn].load(
      relaxed);
}

void BlockRunner::begin_copy(void* to, const void* from) {
  const auto aligned = [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % copy_bytes == 0; };
  check(aligned(to) && aligned(from), "emulated: copy_async takes addresses that are multiples of 16");
  std::memset(to, no_number, copy_bytes);
  current().copies.emplace_back(to, from);
}

void BlockRunner::commit_copies() {
  Thread& self = current();
  std::size_t in_batches = 0;
  for (const std::size_t count : self.batches) in_batches += count;
  self.batches.push_back(self.copies.size() - in_batches);
}

void BlockRunner::wait_for_copies(std::size_t pending) {
  Thread& self = current();
  while (self.batches.size() > pending) {
    const auto done = self.copies.begin() + static_cast<std::ptrdiff_t>(self.batches.front());
    for (auto copy = self.copies.begin(); copy != done; ++copy)
      std::memcpy(copy->first, copy->second, copy_bytes);
    self.copies.erase(self.copies.begin(), done);
    self.batches.erase(self.batches.begin());
  }
}

void* BlockRunner::shared_array(const void* tag, std::size_t bytes) {
  for (SharedArray& array : arrays_) {
    if (array.tag.load(relaxed) == nullptr) {
      const std::size_t at = shared_used_.load(relaxed), size = (bytes + 15) / 16 * 16 + gap_bytes;
      check(at + size <= shared_bytes, "emulated: kernels have too many shared arrays");
      shared_used_.store(at + size, relaxed);
      array.data.store(shared_ + at, relaxed);
      array.bytes.store(bytes, relaxed);
      array.tag.store(tag, relaxed);
      sanitizer::allow(shared_ + at, bytes);
    }
    if (array.tag.load(relaxed) != tag) continue;
    array.used.store(true, relaxed);
    return array.data.load(relaxed);
  }
  fail(Fault::internal, "emulated: kernels have more than ", most_arrays, " shared arrays");
}

int BlockRunner::count(int first, int end, State state) const {
  int found = 0;
  for (int i = first; i < end; ++i)
    found += threads_[static_cast<std::size_t>(i)]->state.load(relaxed) == state;
  return found;
}

void BlockRunner::set_ready(int first, int end) {
  for (int i = first; i < end; ++i) threads_[static_cast<std::size_t>(i)]->state.store(State::ready, relaxed);
}

/// Until every thread of the warp has ended, or waits for what the warp alone cannot give.
void BlockRunner::run_warp(int first) {
  const int end = first + warp_size;
  for (;;) {
    for (int i = first; i < end; ++i) {
      Thread& thread = *threads_[static_cast<std::size_t>(i)];
      if (thread.state.load(relaxed) != State::ready) continue;
      current_.store(&thread, relaxed);
      thread.fiber.enter();
    }
    if (count(first, end, State::at_warp_barrier) != warp_size &&
        count(first, end, State::at_exchange) != warp_size)
      return;
    set_ready(first, end);
  }
}

void BlockRunner::run(const LaunchShape& shape, std::int64_t block, const std::function<void()>& body) {
  check(shape.threads > 0 && shape.threads % warp_size == 0 && shape.threads <= block_threads,
        "emulated: a block of ", shape.threads, " threads was launched, expected warps of 32 and at most ",
        block_threads, " threads");
  check(shape.shared_bytes <= most_dynamic, "emulated: a block wants ", shape.shared_bytes,
        " bytes of shared memory, a GPU has ", most_dynamic);
  while (static_cast<int>(threads_.size()) < shape.threads)
    threads_.push_back(std::make_unique<Thread>(*this, static_cast<int>(threads_.size())));
  sanitizer::forbid(dynamic_, most_dynamic);
  sanitizer::allow(dynamic_, shape.shared_bytes);
  body_.store(&body, relaxed);
  block_.store(block, relaxed);
  blocks_.store(shape.blocks, relaxed);
  thread_count_.store(shape.threads, relaxed);
  sanitizer::releases(&begin_token_);
  set_ready(0, shape.threads);
  for (;;) {
    for (int warp = 0; warp < shape.threads; warp += warp_size) run_warp(warp);
    if (count(0, shape.threads, State::ended) == shape.threads) break;
    if (count(0, shape.threads, State::at_block_barrier) != shape.threads) give_up();
    set_ready(0, shape.threads);
  }
  sanitizer::acquires(&end_token_);
  rethrow_error();
  if (shape.shared_bytes > 0) std::memset(dynamic_, no_number, shape.shared_bytes);
  forget_shared();
}

void BlockRunner::rethrow_error() {
  if (!failed_.load(relaxed)) return;
  failed_.store(false, relaxed);
  std::rethrow_exception(std::exchange(error_, nullptr));
}

void BlockRunner::give_up() {
  const int threads = this->threads();
  const auto waiting = [&](State state) { return count(0, threads, state); };
  const std::string where = join_text(
      waiting(State::at_block_barrier), " at sync_block, ", waiting(State::at_warp_barrier),
      " at sync_warp, ", waiting(State::at_exchange), " at a shuffle, ", waiting(State::ended), " returned");
  // The fibers are left where they wait; for them, that was their end.
  for (char& token : block_tokens_) sanitizer::acquires(&token);
  for (auto& tokens : warp_tokens_)
    for (char& token : tokens) sanitizer::acquires(&token);
  sanitizer::acquires(&abandoned_token_);
  sanitizer::acquires(&end_token_);
  for (auto& thread : threads_) thread->fiber.restart();
  rethrow_error();
  fail(Fault::internal, "emulated: the ", threads, " threads of block ", block(),
       " wait for each other in vain: ", where);
}

void BlockRunner::forget_shared() {
  std::size_t bytes = 0;
  for (SharedArray& array : arrays_) {
    if (array.tag.load(relaxed) == nullptr) break;
    if (!array.used.load(relaxed)) continue;
    array.used.store(false, relaxed);
    bytes += array.bytes.load(relaxed);
    std::memset(array.data.load(relaxed), no_number, array.bytes.load(relaxed));
  }
  check(bytes <= most_static, "emulated: the shared arrays of a block take ", bytes, " bytes, a GPU has ",
        most_static);
}

}  // namespace conclave::emulated
