// Job: the ranks that run one command together, alone or under mpirun, and how a failure on any of them ends
// all of them with one sentence and the right exit code.
#pragma once

#include <functional>
#include <memory>

#include "launch/train/recipe.h"
#include "parallel/communicator.h"

namespace conclave {

/// Runs `work` on all ranks and returns the exit code. An Error that all ranks share is told by rank 0 while
/// all of them end in order; an Error of one rank is told by that rank, which then ends the others wherever
/// they are.
int run_job(const std::function<int(const std::shared_ptr<Communicator>& world)>& work);

/// Gives this rank its threads: those of the recipe or of OMP_NUM_THREADS, else its share of the node's
/// cores. Returns their number. Collective.
int choose_threads(Communicator& world, std::int64_t asked);

/// Where the recipe's training.device lets this rank compute: of several GPUs on a node the one of its number
/// among the node's ranks. Fault::request, on all ranks alike, where there is none for it. Collective.
Device& choose_device(Communicator& world, DeviceKind kind);

/// A sentence when two ranks compute on one GPU, else nothing. `identities`: Device::identity() of all ranks.
std::string shared_gpu(const std::vector<std::string>& identities);

/// The best matrix-product rate of this rank's device in a type over a few tries, in floating-point
/// operations per second.
double quick_matrix_rate(Device& device, DType dtype);

/// The best rate of this rank in reading and writing memory beyond its caches over a few tries, in
/// bytes per second.
double quick_memory_rate();

}  // namespace conclave
