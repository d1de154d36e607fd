// Collectives: the same tensors through our communicator and through bare MPI calls, in turn.
#include "launch/tools/bench/bench.h"
#include "parallel/mpi.h"

namespace conclave {
namespace {

/// Every rank's rows for every rank, [size * rows] floats in and out.
struct Arrays {
  Tensor in, out;
  std::int64_t rows;  // of one rank
  std::int64_t ranks;
  Tensor own() const { return in.slice(0, rows); }
};

struct Operation {
  const char* name;
  std::function<void(const Arrays&)> ours, bare;
};

int count_of(std::int64_t elements) {
  return static_cast<int>(elements);
}

std::vector<Operation> operations(Communicator& world) {
  const auto called = [](int code, const char* call) { check_mpi(code, call, "bench"); };
  return {
      {"all-reduce", [&world](const Arrays& a) { world.all_reduce(a.in, ReduceOp::sum, Purpose::agreement); },
       [called](const Arrays& a) {
         called(MPI_Allreduce(MPI_IN_PLACE, a.in.raw(), count_of(a.in.elements()), MPI_FLOAT, MPI_SUM,
                              MPI_COMM_WORLD),
                "MPI_Allreduce");
       }},
      {"all-gather", [&world](const Arrays& a) { world.all_gather_rows(a.own(), a.out, Purpose::agreement); },
       [called](const Arrays& a) {
         called(MPI_Allgather(a.in.raw(), count_of(a.rows), MPI_FLOAT, a.out.raw(), count_of(a.rows),
                              MPI_FLOAT, MPI_COMM_WORLD),
                "MPI_Allgather");
       }},
      {"reduce-scatter",
       [&world](const Arrays& a) {
         world.reduce_scatter_rows(a.in, a.out.slice(0, a.rows), Purpose::agreement);
       },
       [called](const Arrays& a) {
         called(MPI_Reduce_scatter_block(a.in.raw(), a.out.raw(), count_of(a.rows), MPI_FLOAT, MPI_SUM,
                                         MPI_COMM_WORLD),
                "MPI_Reduce_scatter_block");
       }},
      {"all-to-all",
       [&world](const Arrays& a) {
         const RowCounts counts(static_cast<std::size_t>(a.ranks), a.rows);
         world.all_to_all_rows(a.in, counts, a.out, counts, Purpose::agreement);
       },
       [called](const Arrays& a) {
         called(MPI_Alltoall(a.in.raw(), count_of(a.rows), MPI_FLOAT, a.out.raw(), count_of(a.rows),
                             MPI_FLOAT, MPI_COMM_WORLD),
                "MPI_Alltoall");
       }}};
}

}  // namespace

void bench_collectives(Bench& bench) {
  Communicator& world = bench.mesh.world();
  if (world.size() == 1) return;
  struct Size {
    const char* name;
    std::int64_t bytes;
    int calls;  // timed together
  };
  for (const Size& size :
       {Size{"4 KiB", 1 << 12, 200}, Size{"1 MiB", 1 << 20, 10}, Size{"16 MiB", 1 << 24, 2}}) {
    Arrays arrays;
    arrays.ranks = world.size();
    arrays.rows = size.bytes / static_cast<std::int64_t>(sizeof(float)) / arrays.ranks;
    // Zeros stay zeros, however often they are added up.
    arrays.in = Tensor::zeros({arrays.ranks * arrays.rows}, DType::float32);
    arrays.out = arrays.in.clone();
    for (const Operation& operation : operations(world)) {
      const auto seconds = [&](const std::function<void(const Arrays&)>& call) {
        world.barrier();
        return seconds_of([&] {
                 for (int i = 0; i < size.calls; ++i) call(arrays);
               }) /
               size.calls;
      };
      operation.ours(arrays);
      operation.bare(arrays);
      Figure figure{.subject = "collectives",
                    .name = join_text(operation.name, " of ", size.name, ", ", world.size(), " ranks"),
                    .unit = "s",
                    .values = {},
                    .limit = "bare MPI",
                    .better = Better::lower};
      for (std::int64_t repeat = 0; repeat < bench.repeats; ++repeat) {
        figure.limits.push_back(seconds(operation.bare));
        figure.values.push_back(seconds(operation.ours));
      }
      bench.figures.push_back(figure);
    }
  }
}

}  // namespace conclave
