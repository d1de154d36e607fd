#include "framework/kernels/cuda/fiber.h"

#include <sys/mman.h>

#include <utility>

#include "framework/base/error.h"

namespace conclave::emulated {

Fiber::Fiber(std::function<void()> function) : function_(std::move(function)) {
  void* stack =
      mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(stack != MAP_FAILED && mprotect(stack, guard_bytes, PROT_NONE) == 0, Fault::machine,
        "emulated: no memory for the stack of a thread");
  stack_ = static_cast<std::byte*>(stack);
  outer_marker_ = sanitizer::this_thread_as_fiber();
  marker_ = sanitizer::new_fiber(stack_ + guard_bytes, stack_bytes);
  restart();
  sanitizer::releases(this);
}

Fiber::~Fiber() {
  munmap(stack_, guard_bytes + stack_bytes);
}

void Fiber::restart() {
  sanitizer::allow(stack_ + guard_bytes, stack_bytes);  // what frames that are no more had forbidden
  own_.prepare(stack_ + guard_bytes, stack_bytes, begin, this);
}

void Fiber::begin(void* fiber) {
  auto* self = static_cast<Fiber*>(fiber);
  sanitizer::acquires(self);
  sanitizer::after_switch(self->marker_);
  self->function_();
  fail(Fault::internal, "emulated: a fiber returned");
}

void Fiber::enter() {
  sanitizer::before_switch(outer_marker_, marker_);
  StackSwitch::switch_from_to(outer_, own_);
  sanitizer::after_switch(outer_marker_);
}

void Fiber::leave() {
  sanitizer::before_switch(marker_, outer_marker_);
  StackSwitch::switch_from_to(own_, outer_);
  sanitizer::after_switch(marker_);
}

}  // namespace conclave::emulated
