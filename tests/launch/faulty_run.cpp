// A training run with a planted fault, for reliability_test: faulty_run FAULT WATCHDOG_SECONDS OUTPUT under
// mpirun. At step 4 the batch source of rank 1 goes wrong; trainer, journal, watchdog and job are those of
// the command.
//   skip      rank 1 leaves out a barrier that the others enter
//   other     rank 1 enters a broadcast where the others enter a barrier
//   device    rank 1 leaves out a sum on the device that the others enter
//   endless   rank 1 computes for ever
//   slow      rank 1 takes 0.6 of the watchdog's time, twice: no fault
//   none
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "launch/train/job.h"
#include "launch/train/run_guard.h"
#include "launch/train/stop_signals.h"
#include "launch/train/trainer.h"
#include "parallel/agreement.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace {

void fault(const std::string& kind, double watchdog_seconds, Communicator& world, std::int64_t step) {
  const bool faulty = world.rank() == 1;
  if (step != 3 && step != 4) return;
  if (kind == "slow") {
    if (faulty) std::this_thread::sleep_for(std::chrono::duration<double>(0.6 * watchdog_seconds));
  } else if (step == 4) {
    return;
  } else if (kind == "skip") {
    if (!faulty) world.barrier();
  } else if (kind == "other") {
    if (faulty)
      world.broadcast(Tensor::zeros({1}, DType::int64), 0, Purpose::parameters);
    else
      world.barrier();
  } else if (kind == "device") {
    if (!faulty)
      world.all_reduce(Tensor::zeros({1}, DType::float32, emulated_device()), ReduceOp::sum,
                       Purpose::gradients);
  } else if (kind == "endless") {
    volatile std::int64_t turns = 0;
    while (faulty) turns = turns + 1;
  }
}

int train(const std::shared_ptr<Communicator>& world, const std::string& kind, double seconds,
          const std::string& output) {
  Recipe recipe = test::tiny_recipe();
  recipe.training.watchdog_seconds = seconds;
  recipe.output = output;
  agree(*world, [&] {
    if (world->rank() == 0) clear_journals(RunGuard::journals_of(recipe));
  });
  const RunGuard guard(*world, recipe);
  Mesh mesh(world, {});
  std::int64_t last_step = -1;
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    if (step != last_step) fault(kind, seconds, *world, step);
    last_step = step;
    return test::synthetic_batch(recipe, step, first, count);
  });
  for (int step = 0; step < 20; ++step) trainer.step();
  return 0;
}

}  // namespace
}  // namespace conclave

int main(int, char** arguments) {
  conclave::listen_for_stop_signals();
  return conclave::run_job([&](const std::shared_ptr<conclave::Communicator>& world) {
    return conclave::train(world, arguments[1], std::atof(arguments[2]), arguments[3]);
  });
}
