// Starting and ending MPI, and the one place where its error codes become sentences.
#include "parallel/mpi.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "parallel/device_collectives.h"

namespace conclave {

bool launched_under_mpi() {
  constexpr std::array signs = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK"};
  return std::any_of(signs.begin(), signs.end(),
                     [](const char* sign) { return std::getenv(sign) != nullptr; });
}

int rank_before_mpi() {
  for (const char* sign : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
    if (const char* rank = std::getenv(sign)) return std::atoi(rank);
  return 0;
}

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string words(text.data());
  return words.substr(0, words.find_first_of(",\n"));
}

void check_mpi(int code, const char* call, const std::string& where) {
  if (code == MPI_SUCCESS) [[likely]]
    return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(Fault::machine, call, " failed on ", where, ": ", text);
}

MpiEnvironment::MpiEnvironment() {
  int running = 0;
  check_mpi(MPI_Initialized(&running), "MPI_Initialized", "this process");
  if (running) return;
  int level = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread",
            "this process");
  started_ = true;
  check(level >= MPI_THREAD_SERIALIZED, Fault::machine,
        "MPI_Init_thread: this MPI library does not support MPI_THREAD_SERIALIZED, which Conclave needs");
}

MpiEnvironment::~MpiEnvironment() {
  if (started_) MPI_Finalize();
}

void abort_job(int exit_code) {
  abort_device_collectives();
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace conclave
