// Ranks together write every element once, whatever the layout: shares by themselves, and the parts
// of all ranks of many layouts, written to a checkpoint and read back by the ranks of another. Ranks are
// played one after another in one process; the tests with real ranks are in checkpointing_test.cpp.
#include "launch/train/rank_parts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "framework/store/checkpoint_protocol.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {

TEST(RankParts, SharesAreDisjointAndCoverEverything) {
  const std::vector<std::int64_t> holders = {1, 3, 4, 6, 7};
  for (const std::int64_t elements : {1, 4, 5, 6, 100, 101})
    for (const std::int64_t least : {0, 1, 20, 1000})
      for (const std::int64_t turn : {0, 1, 7}) {
        std::vector<int> writers(static_cast<std::size_t>(elements));
        std::int64_t smallest = elements;
        for (const std::int64_t rank : holders) {
          const Share share = share_of(elements, least, holders, rank, turn);
          for (std::int64_t i = 0; i < share.count; ++i) ++writers[static_cast<std::size_t>(share.begin + i)];
          if (share.count > 0) smallest = std::min(smallest, share.count);
        }
        EXPECT_EQ(writers, std::vector<int>(static_cast<std::size_t>(elements), 1));
        EXPECT_TRUE(smallest == elements || smallest >= least) << smallest;
      }
  EXPECT_EQ(share_of(100, 1000, holders, 1, 0).count, 100);  // turns: one writer after another
  EXPECT_EQ(share_of(100, 1000, holders, 3, 1).count, 100);
  EXPECT_EQ(share_of(100, 1000, holders, 1, 5).count, 100);
}

/// Parameters of every placement that the layers use.
void create_parameters(ParameterSet& parameters) {
  const auto create = [&](const char* name, Shape shape, const Placement& placement) {
    parameters.create(name, shape, {}, Decay::yes, placement);
  };
  create("embedding", {24, 10}, {{{0, Axis::tensor}}, Axis::data});
  create("norm", {10}, {});
  create("output", {10, 16}, {{{1, Axis::tensor}}, Axis::data});
  create("router", {8, 10}, {{}, Axis::data_tensor});
  create("experts.up", {8, 12, 10}, {{{0, Axis::expert}, {1, Axis::expert_tensor}}, Axis::expert_data});
  create("experts.down", {8, 10, 12}, {{{0, Axis::expert}, {2, Axis::expert_tensor}}, Axis::expert_data});
}

struct Layout {
  std::int64_t ranks;
  MeshDegrees degrees;
};

TEST(RankParts, EveryLayoutWritesAllAndEveryOtherReadsIt) {
  std::vector<Layout> layouts;
  for (const std::int64_t ranks : {1, 3, 4, 8})
    for (const std::int64_t tensor : {1, 4})
      for (const std::int64_t expert : {1, 2, 4})
        for (const std::int64_t expert_tensor : {1, 2})
          if (ranks % tensor == 0 && ranks % (expert * expert_tensor) == 0)
            layouts.push_back({ranks, {.tensor = tensor, .expert = expert, .expert_tensor = expert_tensor}});
  ASSERT_GT(layouts.size(), 15u);
  const ScratchDirectory scratch;
  std::int64_t step = 0;
  for (const Layout& layout : layouts) {
    const MeshLayout mesh(layout.ranks, layout.degrees);
    SCOPED_TRACE(join_text(layout.ranks, " ranks, tensor ", layout.degrees.tensor, ", expert ",
                           layout.degrees.expert, ", expert_tensor ", layout.degrees.expert_tensor));
    std::vector<std::vector<Piece>> pieces;
    std::vector<FileEntry> files;
    std::int64_t most = 0, sum = 0;
    begin_checkpoint(scratch.path(), ++step);
    for (std::int64_t rank = 0; rank < layout.ranks; ++rank) {
      ParameterSet parameters(mesh, rank);
      create_parameters(parameters);
      parameters.materialize(DType::float64, 5);  // values are a function of the index in the whole
      pieces.emplace_back();
      const std::vector<RankPart> parts = parts_of_values(parameters, 64);
      for (const RankPart& part : parts) pieces.back().push_back(part.piece);
      ShardImage shard(pieces.back());
      for (std::size_t i = 0; i < parts.size(); ++i)
        if (parts[i].values.defined())
          std::memcpy(shard.data(i), parts[i].values.raw(), parts[i].values.bytes());
      files.push_back(write_shard(scratch.path(), step, rank, shard));
      std::int64_t own = 0;
      for (const Piece& piece : pieces.back()) own += piece.elements();
      most = std::max(most, own);
      sum += own;
    }
    EXPECT_LE(static_cast<double>(most), 1.2 * static_cast<double>(sum) / static_cast<double>(layout.ranks));
    files.push_back(write_checkpoint_file(scratch.path(), step, index_name,
                                          compose_index(pieces, own_attributes(step)).bytes()));
    const CheckpointReader reader(commit_checkpoint(scratch.path(), step, files));

    ParameterSet whole;
    create_parameters(whole);
    whole.materialize(DType::float64, 5);
    for (const Parameter& parameter : whole.all())
      EXPECT_EQ(reader.read_all<double>("model/" + parameter.name), parameter.value.to_host<double>())
          << parameter.name;
    const Layout& other = layouts[static_cast<std::size_t>(step) * 7 % layouts.size()];
    for (std::int64_t rank = 0; rank < other.ranks; ++rank) {
      ParameterSet expected(MeshLayout(other.ranks, other.degrees), rank), read(expected.layout(), rank);
      create_parameters(expected);
      create_parameters(read);
      expected.materialize(DType::float64, 5);
      read.materialize(DType::float64, 6);
      check_fits(reader, {{"model", DType::float64}}, read);
      read_values(reader, read);
      EXPECT_EQ(read.values().to_host<double>(), expected.values().to_host<double>()) << rank;
    }
  }
}

TEST(RankParts, TheFirstThatDoNotFitAreListedAtOnce) {
  const ScratchDirectory scratch;
  CheckpointWriter writer(scratch.path(), 1);
  const std::vector<float> values(240);
  writer.add("model/embedding", {10, 24}, values.data());
  writer.add("model/norm", {10}, values.data());
  writer.add("model/other", {10}, values.data());
  const CheckpointReader reader(writer.commit());
  ParameterSet parameters;
  create_parameters(parameters);
  parameters.materialize(DType::float32, 5);
  expect_words(sentence_of(Fault::data,
                           [&] {
                             check_fits(reader, {{"model", DType::float32}}, parameters);
                           }),
               {"model/embedding is float32 [10, 24], expected float32 [24, 10]", "model/router is missing",
                "model/experts.up is missing", "and 1 other tensor"});
}

}  // namespace
}  // namespace conclave
