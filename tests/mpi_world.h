// What an MPI test program gets from tests/mpi_main.cpp: the communicator of all its ranks.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace conclave::test {

std::shared_ptr<Communicator> mpi_world();

}  // namespace conclave::test
