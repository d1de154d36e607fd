// A StackSwitch is a place in a program that can be left for another one with a stack of its own, on the same
// thread. A switch by stack_switch_x86_64.cpp takes some nanoseconds. The file stack_switch_ucontext.cpp
// serves every other processor.
#pragma once

#include <cstddef>

namespace conclave::emulated {

class StackSwitch {
 public:
  StackSwitch() = default;
  ~StackSwitch();
  StackSwitch(const StackSwitch&) = delete;
  StackSwitch& operator=(const StackSwitch&) = delete;

  /// The next switch to this place calls begin(argument) on the stack; begin must never return.
  void prepare(std::byte* stack, std::size_t bytes, void (*begin)(void*), void* argument);

  /// Goes on at `to`, and returns when a later call switches back to `from`.
  static void switch_from_to(StackSwitch& from, StackSwitch& to);

 private:
  void* place_ = nullptr;
};

}  // namespace conclave::emulated
