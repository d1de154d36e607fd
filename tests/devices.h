// The devices beside the CPU that a test of one process runs on: the emulated one and, where there is a GPU,
// cuda. Tests over MPI ask tests/mpi_world.h.
#pragma once

#include <string>
#include <vector>

#include "framework/base/error.h"
#include "framework/device/device.h"

namespace conclave::test {

/// Why there is no device cuda here; empty when there is one.
inline std::string why_no_cuda() {
  static const std::string reason = [] {
    try {
      cuda_device();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  }();
  return reason;
}

inline std::vector<Device*> gpu_devices() {
  std::vector<Device*> devices{&emulated_device()};
  if (why_no_cuda().empty()) devices.push_back(&cuda_device());
  return devices;
}

}  // namespace conclave::test
