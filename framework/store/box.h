// Boxes are rectangular parts of a row-major tensor, which is how HDF5 selects elements. Optimizer states and
// replicas divide work by flat ranges of a tensor. Such a range is a few boxes side by side.
#pragma once

#include <cstdint>
#include <vector>

namespace conclave {

struct Box {
  std::vector<std::int64_t> start;  // [dims]; index of the first element
  std::vector<std::int64_t> size;   // [dims]
  bool operator==(const Box&) const = default;
};

/// Elements of a box.
std::int64_t element_count(const Box& box);

/// The elements begin .. begin + count - 1 of a row-major tensor of these sizes (at least one dim), as boxes.
/// Box after box, each box row-major, they have the elements of the range in its order. With n dims there are
/// at most 2n - 1: rows that the range begins in, whole rows, rows that it ends in, level by level.
std::vector<Box> boxes_of_range(const std::vector<std::int64_t>& sizes, std::int64_t begin,
                                std::int64_t count);

/// The same boxes in a tensor of which this one is the part that starts at `origin`.
std::vector<Box> moved(std::vector<Box> boxes, const std::vector<std::int64_t>& origin);

}  // namespace conclave
