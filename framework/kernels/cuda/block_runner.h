// BlockRunner runs the threads of one block after another as fibers on the calling thread of the host. Data
// that fibers and the runner both touch is atomic without order, so it orders nothing in the eyes of
// ThreadSanitizer. Order comes from the tokens of barriers, of the block's begin and of its end.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "framework/kernels/cuda/dialect_emulated.h"
#include "framework/kernels/cuda/fiber.h"

namespace conclave::emulated {

class BlockRunner {
 public:
  BlockRunner();

  /// Runs block `block` of the launch to its end. Throws when threads wait in vain.
  void run(const LaunchShape& shape, std::int64_t block, const std::function<void()>& body);

  // Called by the fibers.
  static BlockRunner& of_this_thread();
  int thread_index() const;
  std::int64_t block() const { return block_.load(std::memory_order_relaxed); }
  std::int64_t blocks() const { return blocks_.load(std::memory_order_relaxed); }
  int threads() const { return thread_count_.load(std::memory_order_relaxed); }
  void sync_block();
  void sync_warp();
  std::uint64_t exchange(std::uint64_t bits, int lane);
  void begin_copy(void* to, const void* from);
  void commit_copies();
  void wait_for_copies(std::size_t pending);
  void* shared_array(const void* tag, std::size_t bytes);
  void* dynamic_array() const { return dynamic_; }

 private:
  enum class State { ready, at_block_barrier, at_warp_barrier, at_exchange, ended };

  struct Thread {
    Thread(BlockRunner& runner, int place) : index(place), fiber([&runner] { runner.be_a_thread(); }) {}
    const int index;
    std::atomic<State> state{State::ended};
    // Only the fiber itself looks at these: how many barriers it has passed.
    unsigned block_phase = 0, warp_phase = 0, exchange_phase = 0;
    std::array<std::atomic<std::uint64_t>, 2> offered{};
    // Copies that have begun, also the fiber's own, and how many of them each batch has.
    std::vector<std::pair<void*, const void*>> copies;
    std::vector<std::size_t> batches;
    Fiber fiber;
  };
  struct SharedArray {
    std::atomic<const void*> tag{nullptr};
    std::atomic<std::byte*> data{nullptr};
    std::atomic<std::size_t> bytes{0};
    std::atomic<bool> used{false};
  };

  Thread& current() const { return *current_.load(std::memory_order_relaxed); }
  void be_a_thread();
  void wait_at(Thread& thread, State place);
  void run_warp(int first);
  int count(int first, int end, State state) const;
  void set_ready(int first, int end);
  [[noreturn]] void give_up();
  void rethrow_error();
  void forget_shared();

  static constexpr int most_arrays = 256;
  static constexpr std::size_t copy_bytes = 16;
  static constexpr std::size_t most_static = 48 * 1024, most_dynamic = 227 * 1024;  // bytes; sm_90

  std::vector<std::unique_ptr<Thread>> threads_;
  std::atomic<Thread*> current_{nullptr};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;  // the first that a thread of the block met
  std::atomic<const std::function<void()>*> body_{nullptr};
  std::atomic<std::int64_t> block_{0}, blocks_{0};
  std::atomic<int> thread_count_{0};
  char begin_token_ = 0, end_token_ = 0, abandoned_token_ = 0;
  std::array<char, 2> block_tokens_{};
  std::array<std::array<char, 2>, 32> warp_tokens_{};
  std::array<SharedArray, most_arrays> arrays_;
  std::atomic<std::size_t> shared_used_{0};
  std::byte *shared_, *dynamic_;
};

}  // namespace conclave::emulated
