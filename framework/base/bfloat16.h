// BFloat16 is the upper half of a float32, for storage alone; arithmetic happens in float32. Its layout is
// that of CUDA's __nv_bfloat16 and of oneDNN's bf16.
#pragma once

#include <bit>
#include <cstdint>

#include "framework/base/host_device.h"

namespace conclave {

struct BFloat16 {
  std::uint16_t bits;
};

HOST_DEVICE inline float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

/// The nearest bfloat16, ties to the even one. Numbers beyond the largest become infinite, NaN stays NaN.
HOST_DEVICE inline BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}

}  // namespace conclave
