// A Fiber is a function with a stack of its own. Another function switches to it, and it switches back, on
// one thread of the host. Sanitizers are told of each switch.
#pragma once

#include <cstddef>
#include <functional>

#include "framework/device/sanitizer.h"
#include "framework/kernels/cuda/stack_switch.h"

namespace conclave::emulated {

class Fiber {
 public:
  /// function is called by the first enter() and must never return; it leaves instead. Only the thread that
  /// makes a fiber may enter it.
  explicit Fiber(std::function<void()> function);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Continues the fiber, until it leaves.
  void enter();
  /// Called inside the fiber: continues the caller of enter().
  void leave();
  /// Called outside the fiber: forgets where it was; the next enter() calls the function anew.
  void restart();

 private:
  static void begin(void* self);

  static constexpr std::size_t stack_bytes = 256 * 1024;
  static constexpr std::size_t guard_bytes = 4096;  // below the stack, without access

  std::function<void()> function_;
  std::byte* stack_;
  StackSwitch own_, outer_;
  sanitizer::Fiber marker_, outer_marker_;
};

}  // namespace conclave::emulated
