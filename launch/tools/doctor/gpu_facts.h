// GpuFacts: what the NVIDIA driver says of this machine's GPUs. The driver is looked up in whatever libraries
// are there, so that a build without CUDA can say what it leaves unused.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace conclave {

struct GpuFacts {
  std::string name;
  std::int64_t memory = 0;   // bytes
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  double memory_rate = 0;  // bytes per second that its memory's clock and width allow; 0: unknown
};

struct Gpus {
  bool driver = false;        // libcuda.so.1 is there
  bool answers = false;       // and begins to work
  bool device_files = false;  // /dev/nvidiactl is there
  int driver_version = 0;     // of CUDA: 1000 * major + 10 * minor
  std::vector<GpuFacts> gpus{};
};

/// Asks the driver. It never throws; a fact that it does not tell stays 0.
Gpus read_gpus();

/// "NVIDIA H200, 139 GiB, compute capability 9.0, 132 multiprocessors, memory of 4800 GB/s"
std::string to_text(const GpuFacts& gpu);

/// The version of a library that says it by a function with one int pointer, such as ncclGetVersion. It is -1
/// where the library is not found and 0 where it does not tell.
int library_version(const char* library, const char* function);

}  // namespace conclave
