#include "launch/tools/doctor/gpu_facts.h"

#include <dlfcn.h>

#include <array>
#include <filesystem>

#include "framework/base/error.h"

namespace conclave {
namespace {

/// A library that may not be there. It stays open: drivers do not like to be unloaded.
class Library {
 public:
  explicit Library(const char* name) : handle_(::dlopen(name, RTLD_NOW | RTLD_LOCAL)) {}
  explicit operator bool() const { return handle_ != nullptr; }
  /// Calls a function of this type that returns 0 when all is well; false where it is missing or refuses.
  template <class... Arguments>
  bool call(const char* name, Arguments... arguments) const {
    if (handle_ == nullptr) return false;
    using Function = int (*)(Arguments...);
    const auto function = reinterpret_cast<Function>(::dlsym(handle_, name));
    return function != nullptr && function(arguments...) == 0;
  }

 private:
  void* handle_;
};

/// Attributes of cuDeviceGetAttribute, by the numbers of cuda.h (CUdevice_attribute).
enum class Attribute {
  multiprocessors = 16,
  memory_clock = 36,  // kHz
  bus_width = 37,     // bits
  major = 75,
  minor = 76
};

GpuFacts read_gpu(const Library& driver, int device) {
  GpuFacts gpu;
  std::array<char, 128> name{};
  std::size_t bytes = 0;
  driver.call("cuDeviceGetName", name.data(), static_cast<int>(name.size() - 1), device);
  driver.call("cuDeviceTotalMem_v2", &bytes, device);
  const auto ask = [&](Attribute attribute) {
    int value = 0;
    driver.call("cuDeviceGetAttribute", &value, static_cast<int>(attribute), device);
    return value;
  };
  gpu.name = name.data();
  gpu.memory = static_cast<std::int64_t>(bytes);
  gpu.major = ask(Attribute::major);
  gpu.minor = ask(Attribute::minor);
  gpu.multiprocessors = ask(Attribute::multiprocessors);
  // Two transfers a clock, of bus_width / 8 bytes each.
  gpu.memory_rate = 2.0 * 1000 * ask(Attribute::memory_clock) * ask(Attribute::bus_width) / 8;
  return gpu;
}

}  // namespace

Gpus read_gpus() {
  Gpus found;
  const Library driver("libcuda.so.1");
  found.driver = static_cast<bool>(driver);
  std::error_code ignored;
  found.device_files = std::filesystem::exists("/dev/nvidiactl", ignored);
  int devices = 0;
  found.answers = driver.call("cuInit", 0U) && driver.call("cuDriverGetVersion", &found.driver_version) &&
                  driver.call("cuDeviceGetCount", &devices);
  for (int device = 0; device < devices; ++device) found.gpus.push_back(read_gpu(driver, device));
  return found;
}

std::string to_text(const GpuFacts& gpu) {
  std::string text = join_text(gpu.name, ", ", gpu.memory >> 30, " GiB");
  if (gpu.major > 0) text += join_text(", compute capability ", gpu.major, ".", gpu.minor);
  if (gpu.multiprocessors > 0) text += join_text(", ", gpu.multiprocessors, " multiprocessors");
  if (gpu.memory_rate > 0)
    text += join_text(", memory of ", static_cast<std::int64_t>(gpu.memory_rate / 1e9), " GB/s");
  return text;
}

int library_version(const char* library, const char* function) {
  const Library opened(library);
  if (!opened) return -1;
  int version = 0;
  return opened.call(function, &version) ? version : 0;
}

}  // namespace conclave
