// measure_machine: the rates of launch/plan/machine.h, by running the kernels and collectives that a
// step is made of and fitting the model's terms to their times. The best of several tries counts, so that
// what others do to a shared machine falls out; a step is then to be compared by its best, too.
#pragma once

#include "launch/plan/machine.h"
#include "parallel/communicator.h"

namespace conclave {

/// Work and what it took: x and y are the two amounts whose rates a fit looks for.
struct WorkSample {
  double x, y;
  double seconds;
};
struct FittedRates {
  double x, y;  // per second
};
/// The rates above zero for which x / rate + y / rate comes nearest to the seconds, in relative least
/// squares. An amount that explains nothing gets a rate of 1e18.
FittedRates fit_rates(const std::vector<WorkSample>& samples);

/// In fp32 on the CPU, with the threads that OpenMP has here: rates are divided by them. Over several ranks
/// also the network: within nodes, and between them where there are two. Fault::request with more ranks and
/// threads on a node than processors. Collective; equal on all ranks.
MachineModel measure_machine(Communicator& world, int threads);

}  // namespace conclave
