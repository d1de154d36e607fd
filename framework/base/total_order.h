// A total order of doubles, for sorts that must not break where training has gone wrong and a value is no
// number. It is IEEE 754's totalOrder. std::strong_order would give it, but GCC 11's library lacks that for
// doubles.
#pragma once

#include <bit>
#include <compare>
#include <cstdint>
#include <limits>

namespace conclave {

/// -NaN < -infinity < ... < -0 < +0 < ... < infinity < NaN.
inline std::strong_ordering total_order(double a, double b) {
  // Read as integers, positive doubles have their order already, and negative ones the opposite.
  const auto place = [](double x) {
    const auto bits = std::bit_cast<std::int64_t>(x);
    return bits < 0 ? bits ^ std::numeric_limits<std::int64_t>::max() : bits;
  };
  return place(a) <=> place(b);
}

}  // namespace conclave
