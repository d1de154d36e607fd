// Job: the ranks that run one command together, alone or under mpirun. A failure on any of them ends all of
// them with one sentence and the right exit code.
#pragma once

#include <functional>
#include <memory>

#include "launch/train/recipe.h"
#include "parallel/communicator.h"

namespace conclave {

/// Runs `work` on all ranks and returns the exit code. Rank 0 tells an Error that all ranks share, while all
/// of them end in order. An Error of one rank is told by that rank, which then ends the others wherever they
/// are.
int run_job(const std::function<int(const std::shared_ptr<Communicator>& world)>& work);

/// Gives this rank its threads: those of the recipe or of OMP_NUM_THREADS, else its share of the node's
/// cores. Returns their number. Collective.
int choose_threads(Communicator& world, std::int64_t asked);

/// Returns the device on which the recipe's training.device lets this rank compute. Where a node has several
/// GPUs, it is the one of the rank's number among the node's ranks. Throws Fault::request, on all ranks
/// alike, where there is none for it. Collective.
Device& choose_device(Communicator& world, DeviceKind kind);

/// Returns a sentence when two ranks compute on one GPU, else nothing. `identities` has the
/// Device::identity() of all ranks.
std::string shared_gpu(const std::vector<std::string>& identities);

/// Returns the best matrix-product rate of this rank's device in a type over a few tries, in floating-point
/// operations per second.
double quick_matrix_rate(Device& device, DType dtype);

/// Returns the best rate of this rank in reading and writing memory beyond its caches over a few tries, in
/// bytes per second.
double quick_memory_rate();

}  // namespace conclave
