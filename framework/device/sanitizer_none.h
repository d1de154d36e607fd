// Without a sanitizer there is nothing to tell.
#pragma once

#include <cstddef>

namespace conclave::sanitizer {

constexpr const char* name = "none";

inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}

struct Fiber {};
inline Fiber this_thread_as_fiber() {
  return {};
}
inline Fiber new_fiber(void*, std::size_t) {
  return {};
}
inline void before_switch(Fiber&, Fiber&) {}
inline void after_switch(Fiber&) {}

inline void releases(void*) {}
inline void acquires(void*) {}

}  // namespace conclave::sanitizer
