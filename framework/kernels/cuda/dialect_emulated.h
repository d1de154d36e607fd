// The dialect on the host. A CUDA thread is a fiber with a stack of its own. The fibers of a block take turns
// on one thread of the host, and at least two blocks run at once on different threads. Barriers alone decide
// what one fiber knows of another's writes, and ThreadSanitizer is told so. It sees a missing barrier
// whatever order was run. A barrier or shuffle that some threads never reach is an error with a sentence, not
// a hang.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#include "framework/device/runtime.h"

#define KERNEL inline void
#define DEVICE inline
#define UNROLL
#define SHARED(type, name, count)      \
  static const char tag_of_##name = 0; \
  type* const name =                   \
      static_cast<type*>(::conclave::emulated::shared_array(&tag_of_##name, sizeof(type) * (count)))
#define SHARED_DYNAMIC(type, name) \
  type* const name = static_cast<type*>(::conclave::emulated::shared_array_of_launch())

namespace conclave::emulated {

constexpr int warp_size = 32;
constexpr int block_threads = 64;                // two warps, so that a block has more than one
constexpr std::size_t library_workspace = 4096;  // bytes; opening device memory takes time by its size

using Stream = cudaStream_t;

struct LaunchShape {
  std::int64_t blocks;
  int threads = block_threads;
  std::size_t shared_bytes = 0;
  void* stream = nullptr;
};

int thread_index();
std::int64_t block_index();
int block_size();
std::int64_t block_count();
inline int lane_index() {
  return thread_index() % warp_size;
}
inline int warp_index() {
  return thread_index() / warp_size;
}
void sync_block();
void sync_warp();
/// The value that this lane of the warp came with; the call orders no memory.
std::uint64_t exchange(std::uint64_t bits, int lane);

template <class T>
T shuffle(T value, int lane) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(bits, lane);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle(value, lane_index() ^ mask);
}

/// The target holds no numbers from now on. At the wait the source is read and the target gets its values.
void begin_copy(void* to, const void* from);
template <class T>
void copy_async(T* to, const T* from) {
  begin_copy(to, from);
}
void commit_copies();
void wait_for_copies(std::size_t pending);
template <int pending>
void wait_copies() {
  wait_for_copies(pending);
}
/// Marks a word of the whole warp: an error when lanes come with different arguments, or not at all.
void all_lanes_call(const void* argument);

template <class T>
void atomic_add(T* sum, T value) {
  static_assert(std::is_integral_v<T>);
  std::atomic_ref<T>(*sum).fetch_add(value, std::memory_order_relaxed);
}

/// Cosine and sine of turns * 2 pi.
inline void cosine_sine_of_turns(float turns, float& cosine, float& sine) {
  const double angle = 6.283185307179586 * static_cast<double>(turns);
  cosine = static_cast<float>(std::cos(angle));
  sine = static_cast<float>(std::sin(angle));
}

/// The block's array of this tag, the same for all of its threads. It starts as NaN in every block.
void* shared_array(const void* tag, std::size_t bytes);
void* shared_array_of_launch();

constexpr std::size_t most_shared_bytes() {
  return std::size_t{227} * 1024;  // sm_90
}
constexpr bool has_matrix_units() {
  return true;
}

/// Queues on the stream that body runs as every thread of every block, with device memory open.
void run_blocks(const LaunchShape& shape, std::function<void()> body);

template <class... Parameters>
void launch(const LaunchShape& shape, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  if (shape.blocks == 0) return;
  run_blocks(shape, [=] { kernel(arguments...); });
}

}  // namespace conclave::emulated
