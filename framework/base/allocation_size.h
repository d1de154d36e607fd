// How every device's allocator rounds, for the allocator itself and for whoever plans what it will hand out.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>

namespace conclave {

/// Bytes that a buffer of so many bytes takes on a device, and is counted with. Sizes are rounded up to
/// eighths of a power of two, so that row counts which change a little from step to step (tokens per expert)
/// find a cached block again, at most an eighth larger than asked for.
constexpr std::size_t allocation_size(std::size_t bytes) {
  constexpr std::size_t alignment = 64;
  const std::size_t least = std::max(bytes, alignment);
  const std::size_t step = std::max(std::bit_floor(least) / 8, alignment);
  return (least + step - 1) / step * step;
}

}  // namespace conclave
