// An MPI test program gets the communicator of all its ranks from tests/mpi_main.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace conclave::test {

std::shared_ptr<Communicator> mpi_world();

/// The devices that all ranks have: cpu, emulated and, where there is a GPU for each rank, cuda.
std::vector<Device*> mpi_devices();
/// Why cuda is not among them; empty when it is.
std::string why_no_cuda_for_all();

}  // namespace conclave::test
