// The float exponential against the double one over its whole range, and the scalar formulas built on it.
#include "framework/kernels/scalar_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace conclave {
namespace {

double units_in_the_last_place(float got, double want) {
  const float near = static_cast<float>(want);
  const double unit =
      static_cast<double>(std::nextafter(near, std::numeric_limits<float>::infinity())) - near;
  return std::abs(static_cast<double>(got) - want) / unit;
}

TEST(Exponential, IsAccurateOverTheWholeRange) {
  double worst = 0;
  float worst_at = 0;
  const auto look = [&](float x) {
    const double error = units_in_the_last_place(exponential(x), std::exp(static_cast<double>(x)));
    if (error > worst) worst = error, worst_at = x;
  };
  for (std::uint32_t bits = 0; std::bit_cast<float>(bits) <= 87.3f; bits += 997) {
    look(std::bit_cast<float>(bits));
    look(-std::bit_cast<float>(bits));
  }
  for (float x = -87.3f; x <= 88.3f; x += 0.000173f) look(x);
  EXPECT_LE(worst, 2.0) << "at " << worst_at;
}

TEST(Exponential, IsExactAtZeroAndTameOutsideItsRange) {
  EXPECT_EQ(exponential(0.0f), 1.0f);
  EXPECT_EQ(exponential(-0.0f), 1.0f);
  for (const float x : {-87.4f, -1000.0f, -std::numeric_limits<float>::infinity()}) {
    EXPECT_GE(exponential(x), 0.0f);
    EXPECT_LT(exponential(x), 1.3e-38f);
  }
  for (const float x : {88.4f, 1e6f, std::numeric_limits<float>::infinity()})
    EXPECT_GT(exponential(x), 2e38f);
  // Processors and GPUs make different ones.
  for (const std::uint32_t nan : {0x7FC00000u, 0xFFC00000u, 0x7FFFFFFFu, 0x7F800001u})
    EXPECT_TRUE(std::isnan(exponential(std::bit_cast<float>(nan)))) << "a failed run must show";
}

TEST(Rounding, KeepsTheFirstDigits) {
  EXPECT_EQ(rounded_to(0.0, 12), 0.0);
  EXPECT_EQ(rounded_to(1.0, 12), 1.0);
  EXPECT_EQ(rounded_to(4095.0, 12), 4095.0);
  EXPECT_EQ(rounded_to(4095.5, 12), 4096.0);  // up to a power of two
  EXPECT_EQ(rounded_to(-4097.0, 12), -4098.0);
  EXPECT_EQ(rounded_to(4096.9, 12), 4096.0);
  for (double x = 1e-12; x < 1e12; x *= 1.37) {
    EXPECT_NEAR(rounded_to(x, 26), x, std::ldexp(x, -26));
    EXPECT_EQ(rounded_to(x, 53), x);
    const double once = rounded_to(x, 12);
    EXPECT_EQ(rounded_to(once, 12), once);
  }
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(rounded_to(infinity, 12), infinity);
  EXPECT_EQ(rounded_to(-infinity, 12), -infinity);
  EXPECT_TRUE(std::isnan(rounded_to(std::bit_cast<double>(0x7FFFFFFFFFFFFFFFull), 12)));
}

TEST(Silu, IsItsTextbookFormula) {
  for (double x = -20; x < 20; x += 0.37) {
    const float narrow = static_cast<float>(x);
    EXPECT_NEAR(silu(x), x / (1 + std::exp(-x)), 1e-14) << x;
    EXPECT_NEAR(silu(narrow), silu(static_cast<double>(narrow)), 5e-6) << x;
  }
}

}  // namespace
}  // namespace conclave
