// Shape: the sizes of a row-major tensor, at most four dims. A value type without allocation.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "framework/base/error.h"

namespace conclave {

class Shape {
 public:
  static constexpr int max_dims = 4;

  Shape() = default;  // no dims: a scalar, one element
  Shape(std::initializer_list<std::int64_t> sizes) {
    check(sizes.size() <= max_dims, "Shape: ", sizes.size(), " dims came, at most 4 are supported");
    for (const std::int64_t size : sizes) push_back(size);
  }

  int dims() const { return dims_; }
  std::int64_t operator[](int dim) const { return sizes_[static_cast<std::size_t>(dim)]; }
  std::int64_t elements() const {
    std::int64_t product = 1;
    for (int dim = 0; dim < dims_; ++dim) product *= (*this)[dim];
    return product;
  }
  /// Product of all dims after the first: the width of one row.
  std::int64_t row_elements() const {
    std::int64_t product = 1;
    for (int dim = 1; dim < dims_; ++dim) product *= (*this)[dim];
    return product;
  }
  /// The same shape with another size in one dim.
  Shape with(int dim, std::int64_t size) const {
    Shape changed = *this;
    changed.sizes_[static_cast<std::size_t>(dim)] = size;
    return changed;
  }
  void push_back(std::int64_t size) {
    check(size >= 0, "Shape: size ", size, " came, expected zero or more");
    check(dims_ < max_dims, "Shape: a dim of size ", size, " came after ", dims_,
          ", at most 4 are supported");
    sizes_[static_cast<std::size_t>(dims_++)] = size;
  }
  bool operator==(const Shape& other) const {
    if (dims_ != other.dims_) return false;
    for (int dim = 0; dim < dims_; ++dim)
      if ((*this)[dim] != other[dim]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, max_dims> sizes_{};
  int dims_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (int dim = 0; dim < shape.dims(); ++dim) out << (dim ? ", " : "") << shape[dim];
  return out << ']';
}

}  // namespace conclave
