// Philox against Random123's published vectors, and the promises of RandomKey: permute is a bijection, draws
// depend on the key's meaning and the index alone, and have the moments of their distribution.
#include "framework/base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "framework/base/error.h"

namespace conclave {
namespace {

void expect_words(const Philox4& draw, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  EXPECT_EQ(draw.word[0], a);
  EXPECT_EQ(draw.word[1], b);
  EXPECT_EQ(draw.word[2], c);
  EXPECT_EQ(draw.word[3], d);
}

TEST(Philox, MeetsTheKnownAnswersOfRandom123) {
  expect_words(philox(0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  expect_words(philox(~0ull, ~0ull, ~0ull), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
  expect_words(philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull), 0xd16cfe09,
               0x94fdcceb, 0x5001e420, 0x24126ea1);
}

TEST(RandomKey, PermuteIsABijection) {
  for (const std::uint64_t size :
       {1ull, 2ull, 3ull, 4ull, 5ull, 16ull, 17ull, 255ull, 256ull, 257ull, 1009ull, 5000ull}) {
    const RandomKey key = RandomKey(11).with(size);
    std::vector<bool> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const std::uint64_t place = key.permute(i, size);
      ASSERT_LT(place, size);
      ASSERT_FALSE(seen[place]) << place << " came twice for size " << size;
      seen[place] = true;
    }
  }
  EXPECT_THROW(RandomKey(1).permute(5, 5), Error);
}

TEST(RandomKey, PermuteMixesAndDependsOnTheKey) {
  constexpr std::uint64_t size = 1000;
  std::uint64_t fixed = 0, same = 0;
  double product = 0;
  for (std::uint64_t i = 0; i < size; ++i) {
    const std::uint64_t one = RandomKey(1).permute(i, size), other = RandomKey(2).permute(i, size);
    fixed += one == i;
    same += one == other;
    product += (static_cast<double>(i) - 499.5) * (static_cast<double>(one) - 499.5);
  }
  EXPECT_LT(fixed, 10u);
  EXPECT_LT(same, 10u);
  EXPECT_LT(std::abs(product / (1000 * 83333.25)), 0.13);  // correlation: four standard deviations
}

TEST(RandomKey, PermuteWorksAtTheEndOfTheRange) {
  const std::uint64_t size = ~0ull;
  EXPECT_LT(RandomKey(3).permute(size - 1, size), size);
  EXPECT_NE(RandomKey(3).permute(size - 1, size), RandomKey(3).permute(size - 2, size));
}

TEST(RandomKey, NamesAndNumbersGiveStreamsOfTheirOwn) {
  const RandomKey key(5);
  EXPECT_EQ(key.with("shuffle").with(3).bits(7), RandomKey(5).with("shuffle").with(3).bits(7));
  EXPECT_NE(key.bits(0), RandomKey(6).bits(0));
  EXPECT_NE(key.with("shuffle").bits(0), key.with("weights").bits(0));
  EXPECT_NE(key.with(1).with(2).bits(0), key.with(2).with(1).bits(0));
  EXPECT_NE(key.bits(0), key.bits(1));
  EXPECT_NE(key.bits(1), key.bits(1ull << 32));
}

TEST(RandomKey, NormalHasTheMomentsOfTheStandardNormal) {
  constexpr int count = 200000;
  double moment[5] = {};
  for (int i = 0; i < count; ++i) {
    const double x = RandomKey(42).with("moments").normal(static_cast<std::uint64_t>(i));
    ASSERT_TRUE(std::isfinite(x));
    for (int power = 1; power <= 4; ++power) moment[power] += std::pow(x, power) / count;
  }
  // Four standard deviations of each sample moment: sqrt(1, 2, 15, 96 / count).
  EXPECT_NEAR(moment[1], 0, 4 * std::sqrt(1.0 / count));
  EXPECT_NEAR(moment[2], 1, 4 * std::sqrt(2.0 / count));
  EXPECT_NEAR(moment[3], 0, 4 * std::sqrt(15.0 / count));
  EXPECT_NEAR(moment[4], 3, 4 * std::sqrt(96.0 / count));
}

TEST(RandomKey, UniformAndBelowCoverTheirRangeEvenly) {
  constexpr int count = 70000;
  int bins[7] = {};
  double sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double u = RandomKey(9).uniform(i);
    ASSERT_GT(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    ++bins[RandomKey(10).below(i, 7)];
  }
  EXPECT_NEAR(sum / count, 0.5, 4 * std::sqrt(1.0 / 12 / count));
  for (const int bin : bins) EXPECT_NEAR(bin, count / 7, 4 * std::sqrt(count / 7.0));
  EXPECT_EQ(RandomKey(10).below(3, 1), 0u);
}

}  // namespace
}  // namespace conclave
