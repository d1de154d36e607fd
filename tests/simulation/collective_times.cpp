// Our communicator's collectives under SimGrid's SMPI, which simulates the network: each is timed on the
// simulated clock and held against launch/plan/collective_time.h. Adding up costs nothing there, so the
// description's reduced_bytes_per_second should be huge. Compiled by smpicxx, see run.sh.
//     smpirun ... collective_times MACHINE.yaml all_reduce|all_gather|reduce_scatter|all_to_all BYTES...
// Prints "collective ranks ranks_per_node bytes simulated ALGORITHM seconds ..." with every algorithm's time.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "launch/plan/collective_time.h"
#include "parallel/mpi.h"

namespace conclave {
namespace {

double largest(Communicator& world, double number) {
  const Tensor all = Tensor::from(std::vector<double>{number}, {1});
  world.all_reduce(all, ReduceOp::maximum, Purpose::agreement);
  return all.item();
}

/// Until the last rank is done, when all begin at the same instant: a barrier is left one after the other.
template <class Call>
double simulated_seconds(Communicator& world, Call&& call) {
  const double begin = largest(world, MPI_Wtime()) + 1e-3, left = begin - MPI_Wtime();
  const timespec pause{0, static_cast<long>(std::llround(1e9 * left))};
  nanosleep(&pause, nullptr);
  call();
  return largest(world, MPI_Wtime()) - begin;
}

void run(int argc, char** argv) {
  const MpiEnvironment environment;
  const std::shared_ptr<Communicator> world = world_communicator();
  check(argc > 3, Fault::request, "expected MACHINE.yaml, a collective and bytes");
  const MachineModel machine = load_machine(argv[1]);
  const CollectiveTime time(machine, world->size());
  const std::string name = argv[2];
  const RankGroup all{world->size(), 1};
  for (int i = 3; i < argc; ++i) {
    const std::int64_t rows = std::max(1LL, std::atoll(argv[i]) / 4 / world->size());  // of one rank for one
    const double bytes = 4.0 * static_cast<double>(rows * world->size());
    const Tensor whole = Tensor::zeros({world->size() * rows}, DType::float32), part = whole.part(0, {rows});
    const Tensor own = Tensor::zeros({rows}, DType::float32);
    double seconds = 0;
    std::vector<std::pair<const char*, double>> models;
    if (name == "all_reduce") {
      seconds =
          simulated_seconds(*world, [&] { world->all_reduce(whole, ReduceOp::sum, Purpose::gradients); });
      models = {{"doubling", time.all_reduce_by_doubling(all, bytes)},
                {"ring", time.all_reduce_by_ring(all, bytes)},
                {"halving", time.all_reduce_by_halving(all, bytes)},
                {"tree", time.all_reduce_by_tree(all, bytes)}};
    } else if (name == "all_gather") {
      seconds = simulated_seconds(*world, [&] { world->all_gather_rows(own, whole, Purpose::parameters); });
      models = {{"ring", time.all_gather_by_ring(all, bytes)},
                {"doubling", time.all_gather_by_doubling(all, bytes)}};
    } else if (name == "reduce_scatter") {
      seconds =
          simulated_seconds(*world, [&] { world->reduce_scatter_rows(whole, own, Purpose::gradients); });
      models = {{"ring", time.reduce_scatter_by_ring(all, bytes)},
                {"halving", time.reduce_scatter_by_halving(all, bytes)}};
    } else {
      check(name == "all_to_all", Fault::request, name, " is no collective that is known here");
      const Tensor arrived = whole.clone();
      const RowCounts even(static_cast<std::size_t>(world->size()), rows);
      seconds = simulated_seconds(
          *world, [&] { world->all_to_all_rows(whole, even, arrived, even, Purpose::dispatch); });
      models = {{"posted_at_once", time.all_to_all(all, bytes)}};
    }
    if (world->rank() != 0) continue;
    std::printf("%s %d %lld %.0f simulated %.6e", name.c_str(), world->size(),
                static_cast<long long>(machine.ranks_per_node), bytes, seconds);
    for (const auto& [algorithm, predicted] : models) std::printf(" %s %.6e", algorithm, predicted);
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
  // SMPI knows no threads, which MpiEnvironment would ask for.
  MPI_Init(&argc, &argv);
  try {
    conclave::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "collective_times: %s\n", error.what());
    conclave::abort_job(2);
  }
  MPI_Finalize();
  return 0;
}
