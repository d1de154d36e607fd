// This header says how every device's allocator rounds. The allocator uses it, and so does a plan of what the
// allocator will hand out.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>

namespace conclave {

/// Bytes that a buffer of so many bytes takes on a device, and is counted with. Sizes are rounded up to
/// eighths of a power of two, so a block is at most an eighth larger than asked for. Row counts that change a
/// little from step to step (tokens per expert) thus find a cached block again.
constexpr std::size_t allocation_size(std::size_t bytes) {
  constexpr std::size_t alignment = 64;
  const std::size_t least = std::max(bytes, alignment);
  const std::size_t step = std::max(std::bit_floor(least) / 8, alignment);
  return (least + step - 1) / step * step;
}

}  // namespace conclave
