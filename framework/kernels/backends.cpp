#include "framework/kernels/backends.h"

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave {

const Kernels& cpu_kernels() {
  static const Kernels kernels({cpu::put_all});
  return kernels;
}

const Kernels& emulated_kernels() {
  static const Kernels kernels({emulated::put_all});
  return kernels;
}

const Kernels& kernels_of(const Tensor& tensor) {
  const DeviceKind kind = tensor.device().kind();
  switch (kind) {
    case DeviceKind::cpu:
      return cpu_kernels();
    case DeviceKind::emulated:
      return emulated_kernels();
    case DeviceKind::cuda:
      return cuda_kernels();
    case DeviceKind::counting:
      return counting_kernels();
  }
  fail(Fault::internal, "kernels_of: there are no kernels for device ", static_cast<int>(kind));
}

}  // namespace conclave
