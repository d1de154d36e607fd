// A Tensor is a shape, an element type, a shared device buffer and an offset into it. It is row-major and
// contiguous, so a slice of rows is again a Tensor on the same memory. Copies share memory; nothing is lazy.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "framework/base/shape.h"
#include "framework/device/device.h"
#include "framework/tensor/dtype.h"

namespace conclave {

class Tensor {
 public:
  Tensor() = default;  // no tensor: defined() is false

  /// A tensor whose elements are uninitialised.
  static Tensor empty(Shape shape, DType dtype, Device& device = cpu_device(),
                      MemoryPurpose purpose = MemoryPurpose::activations);
  static Tensor zeros(Shape shape, DType dtype, Device& device = cpu_device(),
                      MemoryPurpose purpose = MemoryPurpose::activations);
  /// A copy of host values; their number must be the shape's.
  template <class T>
  static Tensor from(std::span<const T> values, Shape shape, Device& device = cpu_device()) {
    check(static_cast<std::int64_t>(values.size()) == shape.elements(), "Tensor::from: ", values.size(),
          " values came for shape ", shape);
    Tensor tensor = empty(shape, dtype_of<T>(), device);
    device.copy_from_host(tensor.raw(), values.data(), values.size_bytes());
    return tensor;
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, Shape shape, Device& device = cpu_device()) {
    return from(std::span<const T>(values), shape, device);
  }

  bool defined() const { return buffer_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(int index) const { return shape_[index]; }
  std::int64_t rows() const { return shape_.dims() == 0 ? 1 : shape_[0]; }
  std::int64_t elements() const { return shape_.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * element_bytes(dtype_); }
  DType dtype() const { return dtype_; }
  Device& device() const { return buffer_->device(); }

  /// Work on this stream of the device touches the tensor too, see Buffer::use_on.
  void use_on(void* stream) const { buffer_->use_on(stream); }

  void* raw() const { return static_cast<std::byte*>(buffer_->data()) + offset_; }
  /// The elements, whose type must be T; on the CPU they may be dereferenced.
  template <class T>
  T* data() const {
    check(dtype_ == dtype_of<T>(), "Tensor::data: ", name_of(dtype_of<T>()), " was asked of a tensor of ",
          name_of(dtype_));
    return static_cast<T*>(raw());
  }

  /// The same elements under another shape of equal size.
  Tensor view(Shape shape) const;
  /// Rows begin .. end-1 of dim 0, sharing memory.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  /// `count` elements from element `begin` of the whole, as a tensor of the given shape, sharing memory.
  Tensor part(std::int64_t begin, Shape shape) const;

  Tensor clone() const;
  /// Copies the values of a tensor of equal shape and type, on the same device, or to or from the CPU.
  void copy_from(const Tensor& other) const;
  void fill_zero() const { device().fill_zero(raw(), bytes()); }
  /// The value of a tensor of one element.
  double item() const;
  template <class T>
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<std::size_t>(elements()));
    device().copy_to_host(values.data(), data<T>(), bytes());
    return values;
  }

 private:
  Shape shape_;
  DType dtype_ = DType::float32;
  std::shared_ptr<Buffer> buffer_;
  std::size_t offset_ = 0;  // bytes
};

/// Fails with one sentence when a tensor has another shape or type than an op expects.
void check_tensor(const Tensor& tensor, const char* where, const char* name, const Shape& shape, DType dtype);

}  // namespace conclave
