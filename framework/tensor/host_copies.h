// HostCopies brings the values of several tensors of one device to the host. They are put together on the
// device and cross over once, so the host waits once however many they are.
#pragma once

#include <cstring>
#include <vector>

#include "framework/tensor/tensor.h"

namespace conclave {

class HostCopies {
 public:
  /// Undefined tensors are fine, and so is an empty list.
  explicit HostCopies(const std::vector<Tensor>& tensors);

  /// The elements of the tensor of this number, whose type must be T; none where it was undefined.
  template <class T>
  std::vector<T> of(std::size_t index) const {
    const Part& part = parts_.at(index);
    check(part.bytes == 0 || part.dtype == dtype_of<T>(), "HostCopies: ", name_of(dtype_of<T>()),
          " was asked of a tensor of ", name_of(part.dtype));
    std::vector<T> values(part.bytes / sizeof(T));
    if (part.bytes > 0) std::memcpy(values.data(), bytes_.data() + part.begin, part.bytes);
    return values;
  }

 private:
  struct Part {
    std::size_t begin, bytes;
    DType dtype;
  };
  std::vector<Part> parts_;
  std::vector<std::byte> bytes_;
};

}  // namespace conclave
