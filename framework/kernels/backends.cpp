#include "framework/kernels/backends.h"

#include <map>

#include "framework/kernels/counting/counting_kernels.h"
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

const Kernels& counting_kernels() {
  static const CountingKernels kernels;
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
    case DeviceKind::counting:
      return counting_kernels();
  }
  fail(Fault::internal, "kernels_of: there are no kernels for device ", static_cast<int>(kind));
}

}  // namespace

const Kernels& kernels_of(const Tensor& tensor) {
  const DeviceKind kind = tensor.device().kind();
  if (Profile::active() == nullptr) return kernels_of(kind);
  // They stay for what ops hold until backward.
  static std::map<DeviceKind, ProfiledKernels> profiled;
  return profiled.try_emplace(kind, kernels_of(kind)).first->second;
}

}  // namespace conclave
