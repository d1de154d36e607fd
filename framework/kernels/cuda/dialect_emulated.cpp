// Launches: blocks go to the threads of the host in turn, so that neighbours always run on different ones and
// no synchronisation between them is seen that a GPU would not give.
#include "framework/kernels/cuda/dialect_emulated.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "framework/kernels/cuda/block_runner.h"

namespace conclave::emulated {
namespace {

class BlockPool {
 public:
  BlockPool() : workers_(std::clamp<std::size_t>(std::thread::hardware_concurrency(), 2, 8)) {
    for (std::size_t i = 0; i < workers_; ++i) std::thread([this, i] { work(i); }).detach();
  }

  void run(const LaunchShape& shape, const std::function<void()>& body) {
    const std::lock_guard one_launch_at_a_time(launch_mutex_);
    std::unique_lock lock(mutex_);
    shape_ = &shape;
    body_ = &body;
    busy_ = workers_;
    error_ = nullptr;
    ++launch_;
    begin_.notify_all();
    end_.wait(lock, [&] { return busy_ == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void work(std::size_t worker) {
    BlockRunner runner;
    std::uint64_t done = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      begin_.wait(lock, [&] { return launch_ != done; });
      done = launch_;
      const LaunchShape& shape = *shape_;
      const std::function<void()>& body = *body_;
      lock.unlock();
      std::exception_ptr error;
      try {
        for (auto block = static_cast<std::int64_t>(worker); block < shape.blocks;
             block += static_cast<std::int64_t>(workers_))
          runner.run(shape, block, body);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (error && !error_) error_ = error;
      if (--busy_ == 0) end_.notify_one();
    }
  }

  const std::size_t workers_;
  std::mutex launch_mutex_, mutex_;
  std::condition_variable begin_, end_;
  const LaunchShape* shape_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  std::size_t busy_ = 0;
  std::uint64_t launch_ = 0;
  std::exception_ptr error_;
};

}  // namespace

void run_blocks(const LaunchShape& shape, std::function<void()> body) {
  // Never destroyed: its threads wait for launches until the process ends.
  static BlockPool* pool = new BlockPool;
  run_on(static_cast<cudaStream_t>(shape.stream), "kernel",
         [shape, body = std::move(body)] { pool->run(shape, body); });
}

int thread_index() {
  return BlockRunner::of_this_thread().thread_index();
}
std::int64_t block_index() {
  return BlockRunner::of_this_thread().block();
}
int block_size() {
  return BlockRunner::of_this_thread().threads();
}
std::int64_t block_count() {
  return BlockRunner::of_this_thread().blocks();
}
void sync_block() {
  BlockRunner::of_this_thread().sync_block();
}
void sync_warp() {
  BlockRunner::of_this_thread().sync_warp();
}
std::uint64_t exchange(std::uint64_t bits, int lane) {
  return BlockRunner::of_this_thread().exchange(bits, lane);
}
void begin_copy(void* to, const void* from) {
  BlockRunner::of_this_thread().begin_copy(to, from);
}
void commit_copies() {
  BlockRunner::of_this_thread().commit_copies();
}
void wait_for_copies(std::size_t pending) {
  BlockRunner::of_this_thread().wait_for_copies(pending);
}
void all_lanes_call(const void* argument) {
  const auto own = reinterpret_cast<std::uintptr_t>(argument), first = shuffle(own, 0);
  check(own == first, "emulated: the lanes of a warp came to a matrix tile with different arguments");
}
void* shared_array(const void* tag, std::size_t bytes) {
  return BlockRunner::of_this_thread().shared_array(tag, bytes);
}
void* shared_array_of_launch() {
  return BlockRunner::of_this_thread().dynamic_array();
}

}  // namespace conclave::emulated
