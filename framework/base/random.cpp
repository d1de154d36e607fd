#include "framework/base/random.h"

#include <bit>

#include "framework/base/error.h"

namespace conclave {

std::uint64_t RandomKey::permute(std::uint64_t index, std::uint64_t size) const {
  check(index < size, "RandomKey::permute: index ", index, " is not below size ", size);
  if (size == 1) return 0;
  // Two halves of equal width that together cover the range at most four times over: few walks are expected.
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const std::uint64_t half_mask = (1ull << half_bits) - 1;
  std::uint64_t value = index;
  do {
    std::uint64_t left = value >> half_bits, right = value & half_mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t scrambled = philox(key_, right, 3 + round).word[0];
      const std::uint64_t next = left ^ (scrambled & half_mask);
      left = right;
      right = next;
    }
    value = (left << half_bits) | right;
  } while (value >= size);
  return value;
}

}  // namespace conclave
