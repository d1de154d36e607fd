// Probes of what the machine is: build, processors, memory, limits.
#include <omp.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

#include "framework/base/text.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "framework/store/hdf5_file.h"
#include "launch/tools/doctor/probes.h"
#include "parallel/mpi.h"

#ifdef __clang__
#define CONCLAVE_COMPILER __VERSION__
#else
#define CONCLAVE_COMPILER "GCC " __VERSION__
#endif

namespace conclave {
namespace {

std::string gibibytes(double bytes) {
  char text[48];
  std::snprintf(text, sizeof text, "%.1f GiB", bytes / (1 << 30));
  return text;
}

std::string limit_text(rlim_t limit, double unit, const char* name) {
  if (limit == RLIM_INFINITY) return "unlimited";
  char text[64];
  std::snprintf(text, sizeof text, "%.0f%s", static_cast<double>(limit) / unit, name);
  return text;
}

}  // namespace

Section examine_build() {
  Section section{"Program"};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  section.note("built with a sanitizer, which is many times slower",
               "cmake --preset release && cmake --build --preset release");
#elif defined(__OPTIMIZE__)
  section.ok("an optimised build, by " CONCLAVE_COMPILER);
#else
  section.problem("a build without optimisation, which is many times slower",
                  "cmake --preset release && cmake --build --preset release");
#endif
  const std::string matrices = cpu::matrix_library();
  if (matrices.find("AVX2") == std::string::npos && matrices.find("AVX-512") == std::string::npos)
    section.note(matrices,
                 "matrix products without AVX2 or AVX-512 are slow; ONEDNN_MAX_CPU_ISA may forbid them");
  else
    section.ok(matrices);
  section.ok("training.precision bf16 multiplies " + cpu::bfloat16_products());
  section.ok(hdf5_library());
  section.ok(mpi_library());
  return section;
}

Section examine_processors(const MachineFacts& facts) {
  Section section{"Processors"};
  const auto processors = static_cast<std::int64_t>(facts.processors.size());
  section.ok(counted(processors, "processor", "processors") +
             (facts.processor_name.empty() ? "" : " (" + facts.processor_name + ")") + " of " +
             counted(facts.cores, "core", "cores") + " in " +
             counted(static_cast<std::int64_t>(facts.nodes.size()), "NUMA node", "NUMA nodes"));
  if (facts.nodes.size() > 1)
    for (const NumaNode& node : facts.nodes)
      section.ok("NUMA node " + std::to_string(node.number) + ": processors " +
                 processor_list_text(node.processors));
  if (facts.quota > 0) {
    char quota[64];
    std::snprintf(quota, sizeof quota, "%.2g", facts.quota);
    const std::string what = std::string("this container or job gets the time of ") + quota + " processors";
    if (facts.quota < static_cast<double>(processors))
      section.note(
          what + ", fewer than it sees",
          "ranks times threads should be at most that: more are put to sleep in the middle of a step");
    else
      section.ok(what);
  }
  if (facts.governor == "powersave" || facts.governor == "conservative")
    section.note("the clock's governor is " + facts.governor,
                 "as root: cpupower frequency-set --governor performance");
  else if (!facts.governor.empty())
    section.ok("the clock's governor is " + facts.governor);
  const auto setting = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string threads = setting("OMP_NUM_THREADS");
  section.ok(threads.empty() ? "OMP_NUM_THREADS is not set: each rank takes an even share of the cores"
                             : "OMP_NUM_THREADS is " + threads);
  if (!threads.empty() && omp_get_max_threads() > processors)
    section.problem("that is more threads than the " + counted(processors, "processor", "processors"),
                    "unset it, or export OMP_NUM_THREADS=N with ranks times N at most the number of cores");
  if (setting("OMP_WAIT_POLICY") == "active" || setting("OMP_WAIT_POLICY") == "ACTIVE")
    section.note("OMP_WAIT_POLICY is active: waiting threads keep their cores",
                 "unset it wherever ranks share cores; several times slower was seen");
  return section;
}

Section examine_memory(const MachineFacts& facts, std::int64_t shared_memory_bytes) {
  Section section{"Memory"};
  const auto gib = [](std::int64_t bytes) { return gibibytes(static_cast<double>(bytes)); };
  section.ok(gib(facts.memory) + ", of which " + gib(facts.available) + " are available");
  if (facts.memory_limit > 0 && facts.memory_limit < facts.memory)
    section.note("this container or job is ended when it takes more than " + gib(facts.memory_limit),
                 "compare with `conclave validate RECIPE --ranks N`, times the ranks of a machine");
  if (!facts.huge_pages.empty()) section.ok("transparent huge pages: " + facts.huge_pages);
  if (shared_memory_bytes >= 0 && shared_memory_bytes < (std::int64_t{256} << 20))
    section.problem(
        "only " + gib(shared_memory_bytes) + " are free in /dev/shm, through which ranks of a machine talk",
        "docker run --shm-size=2g, or whatever your container calls it");
  else if (shared_memory_bytes >= 0)
    section.ok("shared memory: " + gib(shared_memory_bytes) + " free in /dev/shm");
  return section;
}

Section examine_limits() {
  Section section{"Limits of a process"};
  const auto limit_of = [](__rlimit_resource resource) {
    rlimit limit{RLIM_INFINITY, RLIM_INFINITY};
    ::getrlimit(resource, &limit);
    return limit.rlim_cur;
  };
  const rlim_t files = limit_of(RLIMIT_NOFILE), locked = limit_of(RLIMIT_MEMLOCK),
               space = limit_of(RLIMIT_AS);
  const std::string files_text = "open files: " + limit_text(files, 1, "");
  if (files < 1024)
    section.note(files_text,
                 "ulimit -n 4096: token files, checkpoints and connections to other ranks are open at once");
  else
    section.ok(files_text);
  const std::string locked_text = "locked memory: " + limit_text(locked, 1024, " KiB");
  if (locked != RLIM_INFINITY && std::filesystem::exists("/sys/class/infiniband"))
    section.problem(
        locked_text + ", and there is InfiniBand, which wants it unlimited",
        "ulimit -l unlimited, or memlock in /etc/security/limits.conf; under Slurm in slurmd's service");
  else
    section.ok(locked_text);
  if (space != RLIM_INFINITY)
    section.note("address space: " + limit_text(space, 1 << 30, " GiB"),
                 "ulimit -v unlimited: token files are mapped whole");
  section.ok("core files: " + limit_text(limit_of(RLIMIT_CORE), 1 << 20, " MiB"));
  return section;
}

}  // namespace conclave
