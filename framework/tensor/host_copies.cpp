#include "framework/tensor/host_copies.h"

namespace conclave {

HostCopies::HostCopies(const std::vector<Tensor>& tensors) {
  constexpr std::size_t alignment = 8;
  std::size_t end = 0;
  Device* device = nullptr;
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) {
      parts_.push_back({end, 0, DType::int64});
      continue;
    }
    check(device == nullptr || device == &tensor.device(), "HostCopies: tensors of several devices came");
    device = &tensor.device();
    parts_.push_back({end, tensor.bytes(), tensor.dtype()});
    end += (tensor.bytes() + alignment - 1) / alignment * alignment;
  }
  bytes_.resize(end);
  if (end == 0) return;
  const Tensor together = Tensor::empty({static_cast<std::int64_t>(end / alignment)}, DType::int64, *device);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (parts_[i].bytes > 0)
      device->copy(static_cast<std::byte*>(together.raw()) + parts_[i].begin, tensors[i].raw(),
                   parts_[i].bytes);
  device->copy_to_host(bytes_.data(), together.raw(), end);
}

}  // namespace conclave
