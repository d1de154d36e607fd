// measure_machine finds the rates of launch/plan/machine.h. It runs the kernels and collectives that a step
// is made of, and fits the model's terms to their times. The best of several tries counts, so that the work
// of others on a shared machine falls out. A step is then to be compared by its best, too.
#pragma once

#include "launch/plan/machine.h"
#include "parallel/communicator.h"

namespace conclave {

/// A WorkSample is work and its time: x and y are the two amounts whose rates a fit looks for.
struct WorkSample {
  double x, y;
  double seconds;
};
struct FittedRates {
  double x, y;  // per second
};
/// Returns the rates above zero for which x / rate + y / rate comes nearest to the seconds, in relative least
/// squares. An amount that explains nothing gets a rate of 1e18.
FittedRates fit_rates(const std::vector<WorkSample>& samples);

/// Measures in fp32 on the CPU, with the threads that OpenMP has here: rates are divided by them. Over
/// several ranks it also measures the network: within nodes, and between them where there are two. Throws
/// Fault::request with more ranks and threads on a node than processors. The result is equal on all ranks.
/// Collective.
MachineModel measure_machine(Communicator& world, int threads);

}  // namespace conclave
