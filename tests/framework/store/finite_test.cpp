// Finite values: found wherever they stand, refused where a checkpoint is written or read.
#include "framework/store/finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "framework/base/error.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/checkpoint_stream.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class T>
void expect_found() {
  std::vector<T> values(10'000, std::numeric_limits<T>::max());
  values[1] = std::numeric_limits<T>::lowest();
  values[2] = std::numeric_limits<T>::denorm_min();
  const auto first = [&] {
    return first_not_finite(ElementTypeOf<T>::value, values.data(), static_cast<std::int64_t>(values.size()));
  };
  EXPECT_EQ(first(), std::nullopt);
  for (const double wrong : {nan, -nan, infinity, -infinity})
    for (const std::size_t place : {0, 1, 4095, 4096, 9'999}) {
      const T good = values[place];
      values[place] = static_cast<T>(wrong);
      EXPECT_EQ(first(), static_cast<std::int64_t>(place)) << wrong;
      values[place] = good;
    }
}

TEST(Finite, TheFirstIsFoundInBothTypes) {
  expect_found<float>();
  expect_found<double>();
  const std::vector<std::int32_t> all_ones(8, -1);
  EXPECT_EQ(first_not_finite(ElementType::int32, all_ones.data(), 8), std::nullopt);
  EXPECT_EQ(first_not_finite(ElementType::float32, nullptr, 0), std::nullopt);
}

std::filesystem::path checkpoint_with(const std::filesystem::path& folder, const std::string& tensor,
                                      double value) {
  CheckpointWriter writer(folder, 3);
  std::vector<float> values(12, 1.0f);
  for (const char* name : {"model/a", "model/b", "optimizer/moment1/a", "optimizer/moment2/a"}) {
    values[5] = name == tensor ? static_cast<float>(value) : 1.0f;
    writer.add(name, {3, 4}, values.data());
  }
  return writer.commit();
}

TEST(Finite, AReaderRefusesAndNamesTheTensor) {
  const ScratchDirectory scratch;
  for (const std::string tensor : {"model/b", "optimizer/moment1/a"}) {
    const CheckpointReader checkpoint(checkpoint_with(scratch.path(), tensor, nan));
    EXPECT_EQ(tensors_not_finite(checkpoint), std::vector<std::string>{tensor});
    EXPECT_NO_THROW(checkpoint.read_all<float>("model/a"));
    float one = 0;
    checkpoint.read_box(tensor, ElementType::float32, {{0, 0}, {1, 1}}, &one);
    EXPECT_EQ(one, 1.0f) << "what was read is finite";
    try {
      checkpoint.read_all<float>(tensor);
      ADD_FAILURE() << "NaN was read without a word";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::numeric);
      EXPECT_NE(std::string(error.what()).find(tensor + " holds values that are not finite"),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(Finite, ASecondMomentMayBeInfinite) {
  const ScratchDirectory scratch;
  const CheckpointReader checkpoint(checkpoint_with(scratch.path(), "optimizer/moment2/a", infinity));
  EXPECT_TRUE(tensors_not_finite(checkpoint).empty());
  EXPECT_EQ(checkpoint.read_all<float>("optimizer/moment2/a")[5], std::numeric_limits<float>::infinity());
}

TEST(Finite, ASecondMomentMayNotBeAnythingElse) {
  const ScratchDirectory scratch;
  const std::string tensor = "optimizer/moment2/a";
  for (const double wrong : {nan, -nan, -infinity}) {
    const CheckpointReader checkpoint(checkpoint_with(scratch.path(), tensor, wrong));
    EXPECT_EQ(tensors_not_finite(checkpoint), std::vector<std::string>{tensor}) << wrong;
    EXPECT_THROW(checkpoint.read_all<float>(tensor), Error) << wrong;
    const double values[] = {1, infinity, wrong};
    EXPECT_EQ(first_bad_value(tensor, ElementType::float64, values, 3), 2) << wrong;
    EXPECT_EQ(first_bad_value("model/a", ElementType::float64, values, 3), 1) << wrong;
  }
}

TEST(Finite, AStreamRefusesAndLeavesNothing) {
  const ScratchDirectory scratch;
  {
    CheckpointStream stream(scratch.path(), 0);
    const std::vector<double> values = {1, infinity};
    EXPECT_THROW(stream.add("model/a", ElementType::float64, {2}, values.data()), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

}  // namespace
}  // namespace conclave
