// A flat range as boxes: for every range of small tensors the boxes hold exactly its elements, in its order,
// and are few.
#include "framework/store/box.h"

#include <gtest/gtest.h>

#include "framework/base/error.h"

namespace conclave {
namespace {

/// The flat indices of a box's elements in the whole tensor, row-major.
void append_indices(const std::vector<std::int64_t>& sizes, const Box& box,
                    std::vector<std::int64_t>& indices) {
  for (std::int64_t i = 0; i < element_count(box); ++i) {
    std::int64_t rest = i, flat = 0, stride = 1;
    for (std::size_t dim = sizes.size(); dim-- > 0;) {
      flat += (box.start[dim] + rest % box.size[dim]) * stride;
      rest /= box.size[dim];
      stride *= sizes[dim];
    }
    indices.push_back(flat);
  }
}

TEST(Box, EveryRangeOfSmallTensorsIsFewBoxesInOrder) {
  const std::vector<std::vector<std::int64_t>> shapes = {{1},       {7},          {1, 5},    {4, 3},
                                                         {3, 1, 4}, {2, 3, 5},    {4, 1, 1}, {2, 1, 3, 2},
                                                         {3, 2, 2}, {2, 2, 3, 2}, {5, 1}};
  for (const auto& sizes : shapes) {
    std::int64_t elements = 1;
    for (const std::int64_t size : sizes) elements *= size;
    for (std::int64_t begin = 0; begin <= elements; ++begin)
      for (std::int64_t count = 0; begin + count <= elements; ++count) {
        const std::vector<Box> boxes = boxes_of_range(sizes, begin, count);
        EXPECT_LE(boxes.size(), 2 * sizes.size() - 1);
        std::vector<std::int64_t> found, expected;
        for (const Box& box : boxes) {
          EXPECT_GT(element_count(box), 0);
          for (std::size_t dim = 0; dim < sizes.size(); ++dim)
            EXPECT_LE(box.start[dim] + box.size[dim], sizes[dim]);
          append_indices(sizes, box, found);
        }
        for (std::int64_t i = begin; i < begin + count; ++i) expected.push_back(i);
        ASSERT_EQ(found, expected) << "range " << begin << " + " << count << " of " << sizes.size()
                                   << " dims";
      }
  }
}

TEST(Box, WholeTensorsAreOneBoxAndTheMostIsReached) {
  EXPECT_EQ(boxes_of_range({3, 4, 5}, 0, 60), (std::vector<Box>{{{0, 0, 0}, {3, 4, 5}}}));
  EXPECT_EQ(boxes_of_range({4, 3, 5}, 4, 47).size(), 5u);
  EXPECT_EQ(boxes_of_range({4, 3}, 2, 2), (std::vector<Box>{{{0, 2}, {1, 1}}, {{1, 0}, {1, 1}}}));
  EXPECT_EQ(moved({{{0, 2}, {1, 1}}}, {10, 20}), (std::vector<Box>{{{10, 22}, {1, 1}}}));
  EXPECT_THROW(boxes_of_range({4, 3}, 10, 3), Error);
  EXPECT_THROW(boxes_of_range({}, 0, 1), Error);
}

}  // namespace
}  // namespace conclave
