// Runs the op table on every device in the types it has, shows that results do not depend on the number of
// threads and that repeating gives the same bits, and that the table notices planted mistakes.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <string>

#include "framework/base/random.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "tests/devices.h"
#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

const std::vector<OpCase>& cases() {
  static const std::vector<OpCase> all = all_cases();
  return all;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

class OpTable : public testing::TestWithParam<std::size_t> {};

TEST_P(OpTable, MeetsThePlainLoops) {
  const OpCase& op = cases()[GetParam()];
  for (Device* device : devices())
    for (const DType dtype : types_of(op, *device)) {
      const auto problems = run_case(op, *device, dtype);
      EXPECT_TRUE(problems.empty()) << op.name << " on " << device->name() << " in " << name_of(dtype) << ":"
                                    << joined(problems);
    }
}

TEST_P(OpTable, IsBitEqualForEveryNumberOfThreads) {
  const OpCase& op = cases()[GetParam()];
  const int threads_before = omp_get_max_threads();
  Device& device = cpu_device();
  for (const DType dtype : types_of(op, device)) {
    omp_set_num_threads(1);
    const auto one = results_of(op, device, dtype);
    for (const int threads : {1, 2, 3}) {
      omp_set_num_threads(threads);
      const auto results = results_of(op, device, dtype);
      if (threads == 2) {
        EXPECT_EQ(results, results_of(op, device, dtype))
            << op.name << " in " << name_of(dtype) << ": repeated";
      }
      if (dtype == DType::float64 || op.bit_equal_in_float32) {
        EXPECT_EQ(one, results) << op.name << " in " << name_of(dtype) << ": 1 and " << threads
                                << " threads differ";
      }
    }
  }
  omp_set_num_threads(threads_before);
}

TEST_P(OpTable, IsBitEqualWhenRepeatedOnOtherDevices) {
  const OpCase& op = cases()[GetParam()];
  for (Device* device : devices()) {
    if (device->kind() == DeviceKind::cpu) continue;
    for (const DType dtype : types_of(op, *device))
      EXPECT_EQ(results_of(op, *device, dtype), results_of(op, *device, dtype))
          << op.name << " on " << device->name() << " in " << name_of(dtype);
  }
}

TEST(OpTableOnCuda, RunsWithTheOthersWhereThereIsAGpu) {
  if (!why_no_cuda().empty())
    GTEST_SKIP() << "none of the " << cases().size() << " cases ran on a GPU: " << why_no_cuda();
  EXPECT_EQ(devices().back()->kind(), DeviceKind::cuda);
}

INSTANTIATE_TEST_SUITE_P(Cases, OpTable, testing::Range(std::size_t{0}, cases().size()),
                         [](const auto& place) { return cases()[place.param].name; });

/// For the run of this program that kernels_test_without_bfloat16 is.
TEST(Products, OfBFloat16AreConvertedWhereTheRunIsAboutThat) {
  if (std::getenv("CONCLAVE_EXPECT_CONVERTED_PRODUCTS") == nullptr) GTEST_SKIP() << "this run is not";
  EXPECT_FALSE(cpu::multiplies_bfloat16());
}

/// The bfloat16 nearest to a float32, of two equally near the even one, by comparing distances in float64.
float nearest_bfloat16(float value) {
  if (std::isnan(value) || std::isinf(value)) return value;
  const std::uint32_t below = std::bit_cast<std::uint32_t>(value) & 0xFFFF0000u, above = below + 0x10000u;
  // The number that would follow the largest, were it not infinity.
  const auto number = [](std::uint32_t bits) {
    const bool infinite = (bits & 0x7FFFFFFFu) == 0x7F800000u;
    const double size = infinite ? std::ldexp(1.0, 128) : std::abs(std::bit_cast<float>(bits));
    return std::signbit(std::bit_cast<float>(bits)) ? -size : size;
  };
  const double to_below = std::abs(number(below) - value), to_above = std::abs(number(above) - value);
  const bool up = to_above < to_below || (to_above == to_below && (below >> 16 & 1u) == 1);
  return std::bit_cast<float>(up ? above : below);
}

TEST(Convert, RoundsToTheNearestBFloat16OnEveryDevice) {
  std::vector<float> values{0.0f, -0.0f, 1.0f, 3.3895e38f, 3.4028e38f, -3.4028e38f, INFINITY, -INFINITY, NAN};
  const RandomKey key = RandomKey(3).with("bits");
  for (std::uint64_t i = 0; i < 20000; ++i) {
    auto bits = static_cast<std::uint32_t>(key.bits(i));
    if (i % 3 == 0) bits = (bits & 0xFFFF0000u) | 0x8000u;  // between two
    values.push_back(std::bit_cast<float>(bits));
  }
  const std::int64_t count = static_cast<std::int64_t>(values.size());
  for (Device* device : devices()) {
    const Tensor rounded = Tensor::empty({count}, DType::bfloat16, *device);
    kernels_of(rounded).convert(Tensor::from(values, {count}, *device), rounded);
    const std::vector<BFloat16> got = rounded.to_host<BFloat16>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float is = to_float(got[i]), expected = nearest_bfloat16(values[i]);
      ASSERT_TRUE(std::isnan(expected) ? std::isnan(is) : is == expected)
          << device->name() << ": " << values[i] << " became " << is << ", expected " << expected;
    }
  }
}

/// y = 2 x over five elements with a mistake of choice.
std::vector<std::string> problems_of(const std::function<void(const float* x, float* y)>& mistaken) {
  OpCase op{"planted", 1, [&](const Kernels&, const Arguments& a) {
              mistaken(static_cast<float*>(a["x"].raw()), static_cast<float*>(a["y"].raw()));
            }};
  op.input("x", {5}, {1, 2, 3, 4, 5}).output("y", {5}, {2, 4, 6, 8, 10});
  return run_case(op, cpu_device(), DType::float32);
}

void twice(const float* x, float* y) {
  for (int i = 0; i < 5; ++i) y[i] = 2 * x[i];
}

TEST(OpTableSees, NothingWrongInACorrectOp) {
  EXPECT_EQ(problems_of(twice), std::vector<std::string>{});
}

TEST(OpTableSees, AWrongResult) {
  EXPECT_EQ(problems_of([](const float* x, float* y) { twice(x, y), y[3] *= 1.0001f; }).size(), 1u);
}

TEST(OpTableSees, AResultNeverWritten) {
  const auto problems = problems_of([](const float* x, float* y) {
    for (int i = 0; i < 4; ++i) y[i] = 2 * x[i];
  });
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("never written"), std::string::npos);
}

TEST(OpTableSees, AccumulationIntoAResult) {
  EXPECT_EQ(problems_of([](const float* x, float* y) {
              for (int i = 0; i < 5; ++i) y[i] += 2 * x[i];
            }).size(),
            1u);
}

TEST(OpTableSees, WritesOutside) {
  EXPECT_EQ(problems_of([](const float* x, float* y) { twice(x, y), y[5] = 0; }),
            std::vector<std::string>{"y: memory behind it was touched"});
  EXPECT_EQ(problems_of([](const float* x, float* y) { twice(x, y), y[-1] = 0; }),
            std::vector<std::string>{"y: memory before it was touched"});
}

TEST(OpTableSees, AChangedInput) {
  EXPECT_EQ(problems_of([](const float* x, float* y) { twice(x, y), const_cast<float*>(x)[2] = 0; }),
            std::vector<std::string>{"x: an input was changed"});
}

}  // namespace
}  // namespace conclave::test
