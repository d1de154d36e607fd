#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include "tests/mpi_world.h"

namespace conclave {
namespace {

constexpr Axis attention_axes[] = {Axis::tensor, Axis::context, Axis::data, Axis::pipeline};
constexpr Axis expert_axes[] = {Axis::expert_tensor, Axis::expert, Axis::expert_data, Axis::pipeline};

TEST(MeshLayout, folds_the_same_ranks_twice) {
  const MeshLayout layout(8, {.tensor = 2, .expert = 4});
  EXPECT_EQ(layout.degree(Axis::data), 4);
  EXPECT_EQ(layout.degree(Axis::expert_data), 2);
  EXPECT_EQ(layout.group(5, Axis::tensor), (std::vector<std::int64_t>{4, 5}));
  EXPECT_EQ(layout.group(5, Axis::data), (std::vector<std::int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(layout.group(5, Axis::expert), (std::vector<std::int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(layout.group(5, Axis::expert_data), (std::vector<std::int64_t>{1, 5}));
  EXPECT_EQ(layout.group(5, Axis::pipeline), (std::vector<std::int64_t>{5}));
}

TEST(MeshLayout, coordinates_of_each_folding_name_every_rank_once) {
  for (const std::int64_t ranks : {1, 2, 3, 4, 6, 8, 12})
    for (const std::int64_t tensor : {1, 2, 3})
      for (const std::int64_t expert : {1, 2, 4})
        for (const std::int64_t expert_tensor : {1, 2}) {
          if (ranks % tensor != 0 || ranks % (expert * expert_tensor) != 0) continue;
          const MeshLayout layout(ranks,
                                  {.tensor = tensor, .expert = expert, .expert_tensor = expert_tensor});
          for (const auto& folding : {attention_axes, expert_axes}) {
            for (std::int64_t rank = 0; rank < ranks; ++rank) {
              std::int64_t composed = 0, stride = 1;
              for (int i = 0; i < 4; ++i) {
                composed += layout.coordinate(rank, folding[i]) * stride;
                stride *= layout.degree(folding[i]);
                const auto group = layout.group(rank, folding[i]);
                EXPECT_EQ(group[static_cast<std::size_t>(layout.coordinate(rank, folding[i]))], rank);
              }
              EXPECT_EQ(composed, rank);
              EXPECT_EQ(stride, ranks);
            }
          }
        }
}

void expect_refused(std::int64_t ranks, MeshDegrees degrees, const std::string& part) {
  try {
    const MeshLayout layout(ranks, degrees);
    ADD_FAILURE() << "accepted, expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(MeshLayout, refuses_what_cannot_be_with_the_numbers) {
  expect_refused(4, {.tensor = 3}, "parallel.tensor is 3, which does not divide 4 ranks");
  expect_refused(8, {.expert = 4, .expert_tensor = 4},
                 "parallel.expert 4 times parallel.expert_tensor 4 does not divide 8 ranks");
  expect_refused(2, {.tensor = 0}, "parallel.tensor is 0, expected 1 or more");
  expect_refused(2, {.expert = -2}, "parallel.expert is -2");
  expect_refused(2, {.expert = std::int64_t{1} << 62, .expert_tensor = 4}, "does not divide 2 ranks");
  expect_refused(2, {.pipeline = 2}, "parallel.pipeline 2, both can only be 1");
}

/// Every axis' communicator must hold exactly the ranks that the arithmetic says, in its order.
void expect_communicators(MeshDegrees degrees) {
  const auto world = test::mpi_world();
  const Mesh mesh(world, degrees);
  for (int i = 0; i < axes; ++i) {
    const Axis axis = static_cast<Axis>(i);
    Communicator& ranks = mesh.axis(axis);
    EXPECT_EQ(ranks.name(), name_of(axis));
    EXPECT_EQ(ranks.rank(), mesh.layout().coordinate(world->rank(), axis));
    const Tensor members = Tensor::empty({ranks.size()}, DType::int64);
    ranks.all_gather_rows(Tensor::from(std::vector<std::int64_t>{world->rank()}, {1}), members,
                          Purpose::agreement);
    EXPECT_EQ(members.to_host<std::int64_t>(), mesh.layout().group(world->rank(), axis)) << name_of(axis);
  }
}

TEST(Mesh, data_takes_all_ranks_by_default) {
  const Mesh mesh(test::mpi_world(), {});
  EXPECT_EQ(mesh.axis(Axis::data).size(), test::mpi_world()->size());
  EXPECT_EQ(mesh.axis(Axis::expert_data).size(), test::mpi_world()->size());
  EXPECT_EQ(mesh.axis(Axis::tensor).size(), 1);
  expect_communicators({});
}

TEST(Mesh, communicators_follow_the_layout) {
  const int size = test::mpi_world()->size();
  expect_communicators({.tensor = size});
  expect_communicators({.expert = size});
  expect_communicators({.tensor = size, .expert_tensor = size});
  if (size % 2 != 0) return;
  expect_communicators({.tensor = 2, .expert = size});
  expect_communicators({.tensor = 2, .expert = size / 2, .expert_tensor = 2});
}

TEST(Mesh, of_one_rank_needs_no_mpi) {
  const Mesh mesh(self_communicator(), {});
  for (int i = 0; i < axes; ++i) EXPECT_EQ(mesh.axis(static_cast<Axis>(i)).size(), 1);
}

}  // namespace
}  // namespace conclave
