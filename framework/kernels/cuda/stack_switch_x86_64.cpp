// By the System V calling convention a function keeps rbx, rbp, r12 to r15 and the stack pointer: with these
// exchanged it goes on elsewhere. swapcontext would also ask the kernel about signals, which costs two system
// calls.
#include <cstdint>

#include "framework/kernels/cuda/stack_switch.h"

extern "C" {
void conclave_switch_stack(void** from, void* to);
void conclave_begin_on_stack();
}

asm(R"(
.text
.type conclave_switch_stack, @function
.globl conclave_switch_stack
conclave_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size conclave_switch_stack, . - conclave_switch_stack

.type conclave_begin_on_stack, @function
.globl conclave_begin_on_stack
conclave_begin_on_stack:
  movq %r12, %rdi
  call *%r13
  ud2
.size conclave_begin_on_stack, . - conclave_begin_on_stack
)");

namespace conclave::emulated {

StackSwitch::~StackSwitch() = default;

void StackSwitch::prepare(std::byte* stack, std::size_t bytes, void (*begin)(void*), void* argument) {
  // What the pops above find, lowest first; afterwards the stack is empty and a multiple of 16, as a call
  // wants it.
  auto* top = reinterpret_cast<void**>(stack + bytes / 16 * 16);
  void** frame = top - 7;
  frame[0] = frame[1] = nullptr;              // r15, r14
  frame[2] = reinterpret_cast<void*>(begin);  // r13
  frame[3] = argument;                        // r12
  frame[4] = frame[5] = nullptr;              // rbx, rbp
  frame[6] = reinterpret_cast<void*>(conclave_begin_on_stack);
  place_ = frame;
}

// ThreadSanitizer has been told already that the other side is running.
[[gnu::no_sanitize("thread")]] void StackSwitch::switch_from_to(StackSwitch& from, StackSwitch& to) {
  conclave_switch_stack(&from.place_, to.place_);
}

}  // namespace conclave::emulated
