#include "framework/store/box.h"

#include <algorithm>

#include "framework/base/error.h"

namespace conclave {
namespace {

using Sizes = std::vector<std::int64_t>;

/// Adds the boxes of the range [begin, end) of the elements that share the first `dim` indices of `start`.
void add_boxes(const Sizes& sizes, std::size_t dim, Sizes start, std::int64_t begin, std::int64_t end,
               std::vector<Box>& boxes) {
  std::int64_t row = 1;  // elements of one index of this dim
  for (std::size_t inner = dim + 1; inner < sizes.size(); ++inner) row *= sizes[inner];
  if (begin % row != 0) {
    start[dim] = begin / row;
    const std::int64_t first = start[dim] * row, stop = std::min(end, first + row);
    add_boxes(sizes, dim + 1, start, begin - first, stop - first, boxes);
    begin = stop;
  }
  const std::int64_t rows = (end - begin) / row;
  start[dim] = begin / row;
  if (rows > 0) {
    Box box{start, Sizes(sizes.size(), 1)};
    box.size[dim] = rows;
    std::copy(sizes.begin() + static_cast<std::ptrdiff_t>(dim) + 1, sizes.end(),
              box.size.begin() + static_cast<std::ptrdiff_t>(dim) + 1);
    boxes.push_back(std::move(box));
    begin += rows * row;
    start[dim] += rows;
  }
  if (begin < end) add_boxes(sizes, dim + 1, start, 0, end - begin, boxes);
}

}  // namespace

std::int64_t element_count(const Box& box) {
  std::int64_t product = 1;
  for (const std::int64_t size : box.size) product *= size;
  return product;
}

std::vector<Box> boxes_of_range(const Sizes& sizes, std::int64_t begin, std::int64_t count) {
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) elements *= size;
  check(!sizes.empty() && begin >= 0 && count >= 0 && begin + count <= elements, "boxes_of_range: ", count,
        " elements from ", begin, " came for ", sizes.size(), " dims with ", elements, " elements");
  std::vector<Box> boxes;
  if (count > 0) add_boxes(sizes, 0, Sizes(sizes.size(), 0), begin, begin + count, boxes);
  return boxes;
}

std::vector<Box> moved(std::vector<Box> boxes, const Sizes& origin) {
  for (Box& box : boxes)
    for (std::size_t dim = 0; dim < origin.size(); ++dim) box.start[dim] += origin[dim];
  return boxes;
}

}  // namespace conclave
