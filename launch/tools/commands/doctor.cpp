#include "launch/tools/commands/doctor.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "framework/base/text.h"
#include "framework/telemetry/terminal.h"
#include "launch/tools/commands/command_line.h"
#include "launch/tools/doctor/probes.h"
#include "launch/train/job.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

std::string host_name() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return host.data();
}

std::int64_t free_shared_memory() {
  struct statvfs place {};
  if (::statvfs("/dev/shm", &place) != 0) return -1;
  return static_cast<std::int64_t>(place.f_bavail) * static_cast<std::int64_t>(place.f_frsize);
}

/// True where mpirun lets waiting ranks leave their processors; it says so to ranks in their environment.
bool waiting_ranks_yield() {
  for (const char* sign : {"OMPI_MCA_mpi_yield_when_idle", "OMPI_MCA_mpi_oversubscribe"}) {
    const char* value = std::getenv(sign);
    if (value != nullptr && *value != '\0' && *value != '0') return true;
  }
  return false;
}

/// True where all ranks see what rank 0 writes. Collective.
void examine_sharing(Section& section, const std::filesystem::path& directory, Communicator& world) {
  const std::filesystem::path marker =
      directory / (".conclave-doctor-" + broadcast_text(world, std::to_string(::getpid()), 0) + "-seen");
  if (world.rank() == 0) std::ofstream(marker) << "here\n";
  static_cast<void>(broadcast_text(world, "written", 0));
  std::error_code ignored;
  const bool seen = std::filesystem::exists(marker, ignored);
  const std::vector<std::string> answers = all_gather_text(world, seen ? "" : host_name());
  std::filesystem::remove(marker, ignored);
  std::string blind;
  for (const std::string& host : answers)
    if (!host.empty() && blind.find(host) == std::string::npos) blind += (blind.empty() ? "" : ", ") + host;
  if (blind.empty())
    section.ok("what one rank writes, all ranks see");
  else
    section.problem("what rank 0 writes is not seen on " + blind,
                    "runs need a directory that all machines share");
}

int examine(Communicator& world, const std::filesystem::path& directory) {
  const MachineFacts facts = read_machine();
  // Before choose_threads, whose OpenMP might bind threads.
  RankPlace place{host_name(), bound_processors(), 1};
  place.threads = choose_threads(world, 0);
  std::vector<RankPlace> places;
  for (const std::string& text : all_gather_text(world, place.text()))
    places.push_back(RankPlace::parse(text));

  std::vector<Section> sections;
  bool writable = false;
  if (world.rank() == 0) {
    sections = {examine_build(),
                examine_processors(facts),
                examine_memory(facts, free_shared_memory()),
                examine_limits(),
                examine_gpus(),
                examine_file_system(directory)};
    writable = count({sections.back()}, Verdict::problem) == 0;
  }
  if (world.size() > 1) {
    if (broadcast_text(world, writable ? "writable" : "", 0) == "writable") {
      Section shared{sections.empty() ? "" : sections.back().title};
      examine_sharing(shared, directory, world);
      if (world.rank() == 0)
        sections.back().findings.insert(sections.back().findings.end(), shared.findings.begin(),
                                        shared.findings.end());
    }
    sections.push_back(examine_ranks(places, facts, waiting_ranks_yield()));
  }
  const int notes = count(sections, Verdict::note), problems = count(sections, Verdict::problem);
  const int code = problems > 0 ? static_cast<int>(Fault::machine) : 0;
  const std::string codes = broadcast_text(world, std::to_string(code), 0);
  if (world.rank() != 0) return std::atoi(codes.c_str());

  std::printf("Conclave on %s%s\n\n%s\n", place.host.c_str(),
              world.size() > 1 ? join_text(", ", world.size(), " ranks").c_str() : "",
              report_text(sections, wants_color(1)).c_str());
  if (problems > 0)
    std::printf("%s, %s. What is marked PROBLEM will make training slow or fail.\n",
                counted(problems, "problem").c_str(), counted(notes, "note").c_str());
  else
    std::printf("No problems, %s.\n", counted(notes, "note").c_str());
  return code;
}

}  // namespace

int run_doctor(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "doctor",
       .summary = "Reports what this machine has for training, and what is wrong with it.",
       .options = {{"directory", "DIR", "where runs will be written; the current directory if not given"}},
       .more =
           "Looks at the program, processors, memory, limits, GPUs and the directory, where it tries what a\n"
           "run does in a folder of its own that it removes again. Under mpirun or srun also at where the\n"
           "ranks run. Each line is OK, a note, or a PROBLEM with what to do.\n"
           "Exit code: 0, or 5 where there is a problem.\n\n"
           "Examples:\n"
           "  conclave doctor --directory runs\n"
           "  mpirun -n 2 conclave doctor"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  check(options.positionals().empty(), Fault::request, "doctor: '",
        options.positionals().empty() ? "" : options.positionals()[0],
        "' came, expected options alone; usage: conclave doctor [--directory DIR]");
  const std::filesystem::path directory = options.text("directory", ".");
  return run_job([&](const std::shared_ptr<Communicator>& world) {
    agree(*world, [&] {
      std::error_code ignored;
      check(world->rank() != 0 || std::filesystem::is_directory(directory, ignored), Fault::request,
            "doctor: --directory ", directory.string(), " is no directory; create it or name another");
    });
    return examine(*world, directory);
  });
}

}  // namespace conclave
