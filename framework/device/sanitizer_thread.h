// ThreadSanitizer sees each fiber as a thread of its own, and only the calls of this header order one after
// another. So it judges by the rules of the device, whatever order the fibers happened to run in.
#pragma once

#include <sanitizer/tsan_interface.h>

#include <cstddef>

namespace conclave::sanitizer {

constexpr const char* name = "thread";

inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}

struct Fiber {
  void* thread = nullptr;
};
inline Fiber this_thread_as_fiber() {
  return {__tsan_get_current_fiber()};
}
inline Fiber new_fiber(void*, std::size_t) {
  return {__tsan_create_fiber(0)};
}
inline void before_switch(Fiber&, Fiber& to) {
  __tsan_switch_to_fiber(to.thread, __tsan_switch_to_fiber_no_sync);
}
inline void after_switch(Fiber&) {}

/// All that this thread did so far comes before whatever follows acquires(token) on another thread.
inline void releases(void* token) {
  __tsan_release(token);
}
inline void acquires(void* token) {
  __tsan_acquire(token);
}

}  // namespace conclave::sanitizer
