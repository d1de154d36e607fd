#include "framework/kernels/cuda/fiber.h"

#include <sys/mman.h>

#include <cstdint>
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
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack_ + guard_bytes;
  own_.uc_stack.ss_size = stack_bytes;
  own_.uc_link = nullptr;
  // makecontext hands on nothing but int.
  const auto self = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&own_, reinterpret_cast<void (*)()>(&Fiber::begin), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(static_cast<std::uint64_t>(self) >> 32));
}

void Fiber::begin(unsigned low, unsigned high) {
  auto* self =
      reinterpret_cast<Fiber*>(static_cast<std::uintptr_t>(low | (static_cast<std::uint64_t>(high) << 32)));
  sanitizer::acquires(self);
  sanitizer::after_switch(self->marker_);
  self->function_();
  fail(Fault::internal, "emulated: a fiber returned");
}

void Fiber::enter() {
  sanitizer::before_switch(outer_marker_, marker_);
  swapcontext(&outer_, &own_);
  sanitizer::after_switch(outer_marker_);
}

void Fiber::leave() {
  sanitizer::before_switch(marker_, outer_marker_);
  swapcontext(&own_, &outer_);
  sanitizer::after_switch(marker_);
}

}  // namespace conclave::emulated
