// A streamed checkpoint is like any other: whole, verified, in several shards, with zeros that take no room.
#include "framework/store/checkpoint_stream.h"

#include <gtest/gtest.h>

#include "framework/store/checkpoint_directory.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {

TEST(CheckpointStream, WhatCameIsReadFromSeveralShards) {
  const ScratchDirectory scratch;
  std::filesystem::path path;
  const auto values_of = [](int tensor) {
    std::vector<float> values(12);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(tensor * 100) + static_cast<float>(i);
    return values;
  };
  {
    CheckpointStream stream(scratch.path(), 0, 100);  // two tensors of 48 bytes are less, three are more
    for (int tensor = 0; tensor < 7; ++tensor) {
      const std::string name = "tensor" + std::to_string(tensor);
      stream.add("model/" + name, ElementType::float32, {3, 4}, values_of(tensor).data());
      stream.add_zeros("optimizer/moment1/" + name, ElementType::float32, {3, 4});
    }
    const double bias = 0.25;
    stream.add("state/bias", ElementType::float64, {1}, &bias);
    EXPECT_FALSE(newest_checkpoint(scratch.path()).path.has_value());
    Attributes attributes = own_attributes(0);
    attributes["tokens"] = std::int64_t{5};
    path = stream.commit(attributes);
  }
  EXPECT_TRUE(std::filesystem::exists(path / "rank-00002.h5"));
  const CheckpointReader reader(path);
  EXPECT_EQ(reader.integer("tokens"), 5);
  EXPECT_EQ(reader.names("model").size(), 7u);
  for (int tensor = 0; tensor < 7; ++tensor) {
    const std::string name = "tensor" + std::to_string(tensor);
    EXPECT_EQ(reader.read_all<float>("model/" + name), values_of(tensor));
    EXPECT_EQ(reader.read_all<float>("optimizer/moment1/" + name), std::vector<float>(12));
  }
  EXPECT_EQ(reader.read_all<double>("state/bias"), std::vector<double>{0.25});
}

TEST(CheckpointStream, WhatIsLargeHasAShardOfItsOwn) {
  const ScratchDirectory scratch;
  const std::vector<double> large{1, 2, 3, 4, 5, 6}, small{7};
  CheckpointStream stream(scratch.path(), 4, 40);
  stream.add("model/a", ElementType::float64, {1}, small.data());
  stream.add("model/b", ElementType::float64, {2, 3}, large.data());
  stream.add("model/c", ElementType::float64, {1}, small.data());
  const CheckpointReader reader(stream.commit(own_attributes(4)));
  EXPECT_EQ(reader.read_all<double>("model/a"), small);
  EXPECT_EQ(reader.read_all<double>("model/b"), large);
  EXPECT_EQ(reader.read_all<double>("model/c"), small);
  EXPECT_TRUE(std::filesystem::exists(reader.path() / "rank-00001.h5"));
  EXPECT_FALSE(std::filesystem::exists(reader.path() / "rank-00002.h5"));
}

TEST(CheckpointStream, LeavesNothingWithoutCommit) {
  const ScratchDirectory scratch;
  {
    CheckpointStream stream(scratch.path() / "checkpoints", 0, 1);
    const float value = 1;
    stream.add("model/a", ElementType::float32, {1}, &value);
  }
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path() / "checkpoints"));
}

}  // namespace
}  // namespace conclave
