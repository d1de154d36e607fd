// MPI: starting and ending it, and communicators over it. MPI is called from one thread at a time. Every
// return code passes through check_mpi; our communicators are duplicates that return their errors, so the
// error handlers of whoever started MPI stay as they were. The only header that shows MPI's types.
#pragma once

// The C interface is enough; the C++ bindings of old MPI versions do not compile without warnings.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace conclave {

/// Whether mpirun or srun started this process; known without starting MPI, which takes a tenth of a second.
bool launched_under_mpi();
/// The rank that mpirun or srun gave this process, 0 without them; for speaking once before MPI runs.
int rank_before_mpi();

/// The first words with which the MPI library describes itself, such as "Open MPI v4.1.4"; MPI need not run.
std::string mpi_library();

/// MPI is running while this lives. Where the surrounding program has started MPI already, it is left to end
/// it. Ending waits for all ranks: an error that only some ranks have must reach abort_job() inside this
/// scope.
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
  /// The most elements in one MPI call, whose counts are of type int; longer tensors go in several.
  std::int64_t largest_count = std::int64_t{1} << 30;
};

/// All ranks of the job. Collective; must be gone when the MpiEnvironment ends.
std::shared_ptr<Communicator> world_communicator(MpiOptions options = {});

/// The ranks of another program's communicator, on a duplicate of it. Collective.
std::shared_ptr<Communicator> mpi_communicator(MPI_Comm ranks, const std::string& name,
                                               MpiOptions options = {});

/// Fault::machine with MPI's own words unless the code is MPI_SUCCESS. `where` names the communicator and the
/// rank.
void check_mpi(int code, const char* call, const std::string& where);

}  // namespace conclave
