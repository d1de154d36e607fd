// MPI: starting and ending it, and communicators over it. One thread at a time calls MPI. Every return code
// passes through check_mpi. Our communicators are duplicates that return their errors, so the error handlers
// of the program that started MPI stay as they were. This is the only header that shows MPI's types.
#pragma once

// The C interface is enough; the C++ bindings of old MPI versions do not compile without warnings.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace conclave {

/// True where mpirun or srun started this process. It is known without starting MPI, which takes a tenth of a
/// second.
bool launched_under_mpi();
/// Returns the rank that mpirun or srun gave this process, 0 without them. It lets the job speak once before
/// MPI runs.
int rank_before_mpi();

/// Returns the first words with which the MPI library describes itself, such as "Open MPI v4.1.4"; MPI need
/// not run.
std::string mpi_library();

/// MPI is running while this lives. Where the surrounding program has started MPI already, that program ends
/// it too. The end waits for all ranks, so an error that only some ranks have must reach abort_job() inside
/// this scope.
class MpiEnvironment {
 public:
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

 private:
  bool started_ = false;
};

/// Ends the processes of all ranks with this exit code, whatever they are doing. Print the reason first.
[[noreturn]] void abort_job(int exit_code);

struct MpiOptions {
  /// The most elements in one MPI call, whose counts are of type int; longer tensors go in several calls.
  std::int64_t largest_count = std::int64_t{1} << 30;
};

/// Returns a communicator of all ranks of the job, which must be gone when the MpiEnvironment ends.
/// Collective.
std::shared_ptr<Communicator> world_communicator(MpiOptions options = {});

/// Returns a communicator of the ranks of another program's, on a duplicate of it. Collective.
std::shared_ptr<Communicator> mpi_communicator(MPI_Comm ranks, const std::string& name,
                                               MpiOptions options = {});

/// Throws Fault::machine with MPI's own words unless the code is MPI_SUCCESS. `where` names the communicator
/// and the rank.
void check_mpi(int code, const char* call, const std::string& where);

}  // namespace conclave
