// AddressSanitizer is told which device memory belongs to no buffer, and which stack the program runs on.
#pragma once

#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

#include <cstddef>

namespace conclave::sanitizer {

constexpr const char* name = "address";

/// Any access to these bytes is a mistake from now on.
inline void forbid(const void* begin, std::size_t bytes) {
  __asan_poison_memory_region(begin, bytes);
}
inline void allow(const void* begin, std::size_t bytes) {
  __asan_unpoison_memory_region(begin, bytes);
}

struct Fiber {
  const void* stack = nullptr;
  std::size_t bytes = 0;
  void* local = nullptr;  // AddressSanitizer's own record of the stack that was left
};
inline Fiber this_thread_as_fiber() {
  pthread_attr_t attributes;
  void* stack = nullptr;
  std::size_t bytes = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    pthread_attr_getstack(&attributes, &stack, &bytes);
    pthread_attr_destroy(&attributes);
  }
  return {stack, bytes, nullptr};
}
inline Fiber new_fiber(void* stack, std::size_t bytes) {
  return {stack, bytes, nullptr};
}
inline void before_switch(Fiber& from, Fiber& to) {
  __sanitizer_start_switch_fiber(&from.local, to.stack, to.bytes);
}
inline void after_switch(Fiber& self) {
  __sanitizer_finish_switch_fiber(self.local, nullptr, nullptr);
}

inline void releases(void*) {}
inline void acquires(void*) {}

}  // namespace conclave::sanitizer
