#include "framework/tensor/tensor.h"

namespace conclave {

Tensor Tensor::empty(Shape shape, DType dtype, Device& device, MemoryPurpose purpose) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.buffer_ = is_floating(dtype) ? device.allocate(tensor.bytes(), purpose)
                                      : device.allocate_integers(tensor.bytes(), purpose);
  return tensor;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device& device, MemoryPurpose purpose) {
  Tensor tensor = empty(shape, dtype, device, purpose);
  tensor.fill_zero();
  return tensor;
}

Tensor Tensor::view(Shape shape) const {
  check(shape.elements() == elements(), "Tensor::view: shape ", shape, " has another size than ", shape_);
  Tensor viewed = *this;
  viewed.shape_ = shape;
  return viewed;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  check(shape_.dims() > 0 && 0 <= begin && begin <= end && end <= shape_[0], "Tensor::slice: rows ", begin,
        " to ", end, " were asked of shape ", shape_);
  return part(begin * shape_.row_elements(), shape_.with(0, end - begin));
}

Tensor Tensor::part(std::int64_t begin, Shape shape) const {
  check(0 <= begin && begin + shape.elements() <= elements(), "Tensor::part: elements ", begin, " to ",
        begin + shape.elements(), " were asked of shape ", shape_);
  Tensor taken = *this;
  taken.shape_ = shape;
  taken.offset_ += static_cast<std::size_t>(begin) * element_bytes(dtype_);
  return taken;
}

Tensor Tensor::clone() const {
  Tensor copy = empty(shape_, dtype_, device());
  copy.copy_from(*this);
  return copy;
}

void Tensor::copy_from(const Tensor& other) const {
  check_tensor(other, "Tensor::copy_from", "other", shape_, dtype_);
  if (&device() == &other.device())
    device().copy(raw(), other.raw(), bytes());
  else if (device().kind() == DeviceKind::cpu)
    other.device().copy_to_host(raw(), other.raw(), bytes());
  else if (other.device().kind() == DeviceKind::cpu)
    device().copy_from_host(raw(), other.raw(), bytes());
  else
    fail(Fault::internal, "Tensor::copy_from: from ", other.device().name(), " to ", device().name(),
         " there is only the way over the CPU");
}

double Tensor::item() const {
  check(elements() == 1, "Tensor::item: one element was expected, shape ", shape_, " came");
  switch (dtype_) {
    case DType::float32:
      return to_host<float>()[0];
    case DType::float64:
      return to_host<double>()[0];
    case DType::int32:
      return to_host<std::int32_t>()[0];
    case DType::int64:
      return static_cast<double>(to_host<std::int64_t>()[0]);
    case DType::bfloat16:
      return to_float(to_host<BFloat16>()[0]);
  }
  return 0;
}

void check_tensor(const Tensor& tensor, const char* where, const char* name, const Shape& shape,
                  DType dtype) {
  check(tensor.defined(), where, ": ", name, " is missing");
  check(tensor.shape() == shape && tensor.dtype() == dtype, where, ": ", name, " is ",
        name_of(tensor.dtype()), " ", tensor.shape(), ", expected ", name_of(dtype), " ", shape);
}

}  // namespace conclave
