// The probe of GPUs, and of what computing on them needs beside the driver.
#include <utility>

#include "framework/base/error.h"
#include "launch/tools/doctor/gpu_facts.h"
#include "launch/tools/doctor/probes.h"

namespace conclave {
namespace {

std::string version_text(int version, int thousands, int tens) {
  return join_text(version / thousands, ".", version % thousands / tens);
}

void examine_nccl(Section& section) {
  const int version = library_version("libnccl.so.2", "ncclGetVersion");
  if (version <= 0)
    section.note("NCCL is not found", "several ranks with GPUs need libnccl2");
  else  // ncclGetVersion: 1000 * major + 100 * minor + patch before 2.9, since then 10000 * major
    section.ok("NCCL " +
               (version < 10000 ? version_text(version, 1000, 100) : version_text(version, 10000, 100)));
}

/// GPUs older than this have no code in any build.
constexpr int least_major = 7, least_minor = 5;

}  // namespace

Section examine_gpus() {
  Section section{"GPUs"};
  const Gpus found = read_gpus();
  if (!found.driver) {
    if (found.device_files)
      section.problem("there is an NVIDIA device, but the driver's library libcuda.so.1 is not found",
                      "in a container: start it with GPUs (docker run --gpus all)");
    else
      section.ok("none; training.device is cpu");
    return section;
  }
  if (!found.answers || found.gpus.empty()) {
    if (found.device_files)
      section.problem("the NVIDIA driver finds no GPU",
                      "nvidia-smi tells more; CUDA_VISIBLE_DEVICES may hide them");
    else
      section.ok("a driver without a GPU; training.device is cpu");
    return section;
  }
  section.ok("driver for CUDA " + version_text(found.driver_version, 1000, 10));
  for (std::size_t device = 0; device < found.gpus.size(); ++device) {
    const GpuFacts& gpu = found.gpus[device];
    const std::string text = join_text("GPU ", device, ": ", to_text(gpu));
    if (gpu.major > 0 && std::pair(gpu.major, gpu.minor) < std::pair(least_major, least_minor))
      section.problem(text, join_text("it is older than compute capability ", least_major, ".", least_minor,
                                      ", the least that the device cuda can be built for"));
    else
      section.ok(text);
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
