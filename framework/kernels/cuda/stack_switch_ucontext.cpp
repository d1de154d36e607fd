// For processors without a file of their own.
#include <ucontext.h>

#include <cstdint>

#include "framework/kernels/cuda/stack_switch.h"

namespace conclave::emulated {
namespace {

struct Place {
  ucontext_t context;
  void (*begin)(void*) = nullptr;
  void* argument = nullptr;
};

/// makecontext hands on nothing but int.
void begin_at(unsigned low, unsigned high) {
  auto* place =
      reinterpret_cast<Place*>(static_cast<std::uintptr_t>(low | (static_cast<std::uint64_t>(high) << 32)));
  place->begin(place->argument);
}

[[gnu::no_sanitize("thread")]] Place& place_in(void*& pointer) {
  if (pointer == nullptr) pointer = new Place;
  return *static_cast<Place*>(pointer);
}

}  // namespace

StackSwitch::~StackSwitch() {
  delete static_cast<Place*>(place_);
}

void StackSwitch::prepare(std::byte* stack, std::size_t bytes, void (*begin)(void*), void* argument) {
  Place& place = place_in(place_);
  place.begin = begin;
  place.argument = argument;
  getcontext(&place.context);
  place.context.uc_stack.ss_sp = stack;
  place.context.uc_stack.ss_size = bytes;
  place.context.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(&place);
  makecontext(&place.context, reinterpret_cast<void (*)()>(begin_at), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(static_cast<std::uint64_t>(self) >> 32));
}

// ThreadSanitizer has been told already that the other side is running.
[[gnu::no_sanitize("thread")]] void StackSwitch::switch_from_to(StackSwitch& from, StackSwitch& to) {
  swapcontext(&place_in(from.place_).context, &place_in(to.place_).context);
}

}  // namespace conclave::emulated
