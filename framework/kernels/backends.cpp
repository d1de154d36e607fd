#include "framework/kernels/backends.h"

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cuda/device_kernels.h"
#include "framework/kernels/profiled_kernels.h"

namespace conclave {

const Kernels& cpu_kernels() {
  static const CpuKernels kernels;
  return kernels;
}

const Kernels& emulated_kernels() {
  static const emulated::DeviceKernels kernels;
  return kernels;
}

namespace {

const Kernels& kernels_of(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::cpu:
      return cpu_kernels();
    case DeviceKind::emulated:
      return emulated_kernels();
    case DeviceKind::cuda:
      return cuda_kernels();
  }
  fail(Fault::internal, "kernels_of: there are no kernels for device ", static_cast<int>(kind));
}

}  // namespace

const Kernels& kernels_of(const Tensor& tensor) {
  const Kernels& kernels = kernels_of(tensor.device().kind());
  if (Profile::active() == nullptr) return kernels;
  // What ops hold until backward stays good: one for the one device that a process computes on.
  static const ProfiledKernels profiled(kernels);
  return profiled.of(kernels) ? profiled : kernels;
}

}  // namespace conclave
