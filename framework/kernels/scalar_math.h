// Scalar formulas that every device shares: exponential, sigmoid, SiLU, rounding to some digits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "framework/base/host_device.h"

namespace conclave {

/// e^x to 2 units in the last place, written so that the compiler vectorises loops over it. It takes x = n ln
/// 2 + r with |r| <= ln 2 / 2, a degree-6 polynomial for e^r, and n added to the exponent bits. Below -87.3
/// it gives about 1e-38.
HOST_DEVICE inline float exponential(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;  // ln 2 in two pieces, so that the first product is exact
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted)
                                << 23;  // the low bits of `shifted` hold n
  const float result = std::bit_cast<float>(std::bit_cast<std::int32_t>(p) + exponent);
  return x == x ? result : x;  // the bits of some NaN would add up to a number
}
HOST_DEVICE inline double exponential(double x) {
  return std::exp(x);
}

/// x rounded to its first `digits` binary digits, halves away from zero.
HOST_DEVICE inline double rounded_to(double x, int digits) {
  if (!(x - x == 0)) return x;  // infinity or no number
  const std::uint64_t unit = std::uint64_t{1} << (53 - digits);
  return std::bit_cast<double>((std::bit_cast<std::uint64_t>(x) + unit / 2) & ~(unit - 1));
}

template <class T>
HOST_DEVICE inline T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

template <class T>
HOST_DEVICE inline T silu(T x) {
  return x * sigmoid(x);
}

}  // namespace conclave
