// The probe of GPUs: driver and NCCL are looked up in whatever libraries are there, so that a build without
// CUDA can say what it leaves unused.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include "framework/base/error.h"
#include "launch/tools/doctor/probes.h"

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

std::string version_text(int version, int thousands, int tens) {
  return join_text(version / thousands, ".", version % thousands / tens);
}

void examine_nccl(Section& section) {
  const Library nccl("libnccl.so.2");
  int version = 0;
  if (!nccl.call("ncclGetVersion", &version))
    section.note("NCCL is not found", "several ranks with GPUs need libnccl2");
  else  // ncclGetVersion: 1000 * major + 100 * minor + patch before 2.9, since then 10000 * major
    section.ok("NCCL " +
               (version < 10000 ? version_text(version, 1000, 100) : version_text(version, 10000, 100)));
}

}  // namespace

Section examine_gpus() {
  Section section{"GPUs"};
  const Library driver("libcuda.so.1");
  const bool device_files = std::filesystem::exists("/dev/nvidiactl");
  if (!driver) {
    if (device_files)
      section.problem("there is an NVIDIA device, but the driver's library libcuda.so.1 is not found",
                      "in a container: start it with GPUs (docker run --gpus all)");
    else
      section.ok("none; training.device is cpu");
    return section;
  }
  int version = 0, devices = 0;
  if (!driver.call("cuInit", 0U) || !driver.call("cuDriverGetVersion", &version) ||
      !driver.call("cuDeviceGetCount", &devices) || devices == 0) {
    if (device_files)
      section.problem("the NVIDIA driver finds no GPU",
                      "nvidia-smi tells more; CUDA_VISIBLE_DEVICES may hide them");
    else
      section.ok("a driver without a GPU; training.device is cpu");
    return section;
  }
  section.ok("driver for CUDA " + version_text(version, 1000, 10));
  for (int device = 0; device < devices; ++device) {
    std::array<char, 128> name{};
    std::size_t bytes = 0;
    driver.call("cuDeviceGetName", name.data(), static_cast<int>(name.size() - 1), device);
    driver.call("cuDeviceTotalMem_v2", &bytes, device);
    section.ok(join_text("GPU ", device, ": ", name.data(), ", ", bytes >> 30, " GiB"));
  }
  examine_nccl(section);
#ifdef CONCLAVE_WITH_CUDA
  section.ok("this build trains on them: training.device=cuda");
#else
  section.note("this build has no CUDA", "cmake --preset cuda && cmake --build --preset cuda");
#endif
  return section;
}

}  // namespace conclave
