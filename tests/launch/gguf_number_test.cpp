// The number types of GGUF files against the bytes of the package `gguf`, and half precision bit by bit.
#include <cmath>
#include <limits>

#include "launch/tools/convert/gguf/number_type.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/launch/gguf_reader.h"

namespace conclave {
namespace {

using gguf::NumberType;

// The bytes are those that gguf.quants.quantize of the package gguf 0.19 gives for these blocks.
TEST(GgufNumber, Q8IsThatOfTheirPackage) {
  std::vector<float> values;
  for (int i = 0; i < 32; ++i) values.push_back(static_cast<float>(i * 37 % 101 - 50) / 8);
  values.resize(64, 0.0f);
  for (int i = 0; i < 32; ++i) values.push_back(static_cast<float>(i - 16) * 1e-9f);
  for (int i = 0; i < 32; ++i) values.push_back(i == 0 ? 127.0f : static_cast<float>(i - 16) + 0.5f);
  for (int i = 0; i < 32; ++i) values.push_back(i == 7 ? -3e6f : static_cast<float>(i) * 1e5f);
  for (int i = 0; i < 32; ++i) values.push_back(static_cast<float>(i) * 1e-41f);
  std::string digits;
  for (const std::byte byte : gguf::encode(values.data(), values.size(), NumberType::q8_0, "it"))
    for (const int half : {static_cast<int>(byte) >> 4, static_cast<int>(byte) & 15})
      digits += "0123456789abcdef"[half];
  EXPECT_EQ(digits,
            "4d2a81df3d9af856b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc"
            "00000000000000000000000000000000000000000000000000000000000000000000"
            "000081899199a1a9b1b9c0c8d0d8e0e8f0f8000810182028303840474f575f676f77"
            "003c7ff1f2f3f4f5f6f7f8f9fafbfcfdfeff0102030405060708090a0b0c0d0e0f10"
            "f6750004080c101419852125292d3135393d42464a4e52565a5e62666b6f73777b7f"
            "00000000000000000000000000000000000000000000000000000000000000000000");
}

TEST(GgufNumber, HalvesRoundToTheNearestTiesToEven) {
  for (std::uint32_t half = 0; half < 0x7C00; ++half) {
    const float here = test::float_of_half(static_cast<std::uint16_t>(half));
    ASSERT_EQ(gguf::to_half(here), half);
    ASSERT_EQ(gguf::to_half(-here), half | 0x8000);
    const float next = half == 0x7BFF ? 65536.0f : test::float_of_half(static_cast<std::uint16_t>(half + 1));
    const float middle = here + (next - here) / 2;
    ASSERT_EQ(gguf::to_half(middle), half + (half & 1)) << half;
    ASSERT_EQ(gguf::to_half(std::nextafter(middle, 0.0f)), half);
    ASSERT_EQ(gguf::to_half(std::nextafter(middle, next)), half + 1);
  }
  EXPECT_EQ(gguf::to_half(std::numeric_limits<float>::infinity()), 0x7C00);
  EXPECT_EQ(gguf::to_half(-1e30f), 0xFC00);
  EXPECT_GT(gguf::to_half(std::numeric_limits<float>::quiet_NaN()) & 0x7FFF, 0x7C00);
  const std::vector<float> values = {1.0f, 70000.0f};
  expect_words(sentence_of(Fault::numeric,
                           [&] { gguf::encode(values.data(), values.size(), NumberType::f16, "blk.1.x"); }),
               {"blk.1.x", "70000", "too large for fp16", "bf16"});
}

}  // namespace
}  // namespace conclave
