#include "launch/train/job.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "framework/base/foreign_exception.h"
#include "framework/base/printable.h"
#include "framework/kernels/kernels.h"
#include "framework/telemetry/terminal_writer.h"
#include "parallel/agreement.h"
#include "parallel/mpi.h"

namespace conclave {
namespace {

/// Without MPI there is nobody else to end: run_command prints the sentence.
int run_alone(const std::function<int(const std::shared_ptr<Communicator>&)>& work) {
  return work(self_communicator());
}

/// The job ends also where its terminal is stopped.
void say_last(const std::string& line) {
  write_within(2, STDERR_FILENO, line);
}

[[noreturn]] void end_all_ranks(const Communicator& world, int exit_code, const std::string& sentence) {
  // Where several ranks fail at once, the lowest speaks first and its abort ends the others before they do.
  std::this_thread::sleep_for(std::chrono::milliseconds(250) * std::min(world.rank(), 20));
  say_last("conclave: " + (sentence.starts_with("[rank ") ? "" : join_text("[rank ", world.rank(), "] ")) +
           printable(sentence) + "\n");
  world.note_leaving();
  abort_job(exit_code);
}

}  // namespace

int run_job(const std::function<int(const std::shared_ptr<Communicator>&)>& work) {
  if (!launched_under_mpi()) return run_alone(work);
  const MpiEnvironment environment;
  const std::shared_ptr<Communicator> world = world_communicator();
  try {
    return work(world);
  } catch (const Error& error) {
    if (error.reach() != Reach::all_ranks && world->size() > 1)
      end_all_ranks(*world, error.exit_code(), error.what());
    if (world->rank() == 0) say_last(join_text("conclave: ", printable(error.what()), "\n"));
    return error.exit_code();
  } catch (...) {
    const Error error = error_of(std::current_exception());
    end_all_ranks(*world, error.exit_code(), error.what());
  }
}

namespace {

/// OpenMP ends the process with a line of its own where it gets no thread, so they are asked for here first.
/// All of them live at the same time.
void check_threads(int threads) {
  std::vector<std::thread> started;
  std::mutex may_end;
  may_end.lock();
  const std::optional<Error> failure = failure_of([&] {
    for (int i = 1; i < threads; ++i)
      started.emplace_back([&may_end] { const std::lock_guard wait(may_end); });
  });
  may_end.unlock();
  for (std::thread& thread : started) thread.join();
  if (failure)
    fail(failure->fault(), "training.threads: of ", threads, " threads ", started.size() + 1, " can run. ",
         failure->what());
}

}  // namespace

int choose_threads(Communicator& world, std::int64_t asked) {
  const NodePlace place = world.node_place();
  const int usable = omp_get_num_procs();  // of this process, which mpirun may have bound to some cores
  const auto cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  agree(world, [&] {
    check(asked <= 4 * cores, Fault::request, "training.threads: ", asked, " came, this machine has ", cores,
          " cores; expected at most four per core, or 0 for an even share");
  });
  int threads = std::clamp(cores / place.size, 1, usable);
  if (asked > 0)
    threads = static_cast<int>(asked);
  else if (std::getenv("OMP_NUM_THREADS") != nullptr)
    threads = omp_get_max_threads();
  omp_set_num_threads(threads);
  // More than four per core are only asked for by mistake, which `doctor` names.
  agree(world, [&] { check_threads(std::min(threads, 4 * cores)); });
  return threads;
}

Device& choose_device(Communicator& world, DeviceKind kind) {
  const NodePlace place = world.node_place();
  Device* device = &cpu_device();
  agree(world, [&] {
    if (kind == DeviceKind::cuda) device = &cuda_device(place.rank);
    if (kind == DeviceKind::emulated) device = &emulated_device();
  });
  if (const std::string shared = shared_gpu(all_gather_text(world, device->identity())); !shared.empty())
    throw Error(Fault::request, shared, Reach::all_ranks);
  return *device;
}

std::string shared_gpu(const std::vector<std::string>& identities) {
  std::map<std::string, std::size_t> ranks;
  for (std::size_t rank = 0; rank < identities.size(); ++rank) {
    if (identities[rank].empty()) continue;
    const auto [first, is_new] = ranks.emplace(identities[rank], rank);
    if (!is_new)
      return join_text(
          "training.device: cuda came, but ranks ", first->second, " and ", rank,
          " see the same GPU; each rank needs one of its own: start as many ranks per node as it has "
          "GPUs");
  }
  return {};
}

namespace {

/// The shortest of a few tries until `result` is there, in seconds.
template <class Action>
double best_of(int tries, const Tensor& result, Action&& action) {
  double best = std::numeric_limits<double>::infinity();
  for (int attempt = 0; attempt < tries; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    result.view({result.elements()}).slice(0, 1).item();  // on a device: wait for it
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

double quick_memory_rate() {
  constexpr std::int64_t elements = std::int64_t{1} << 24;
  const Tensor x = Tensor::zeros({elements}, DType::float32), y = x.clone();
  // Two read, one written.
  return 3.0 * static_cast<double>(x.bytes()) / best_of(5, y, [&] { kernels_of(x).add_scaled(x, 0.5, y); });
}

double quick_matrix_rate(Device& device, DType dtype) {
  // Large enough for a GPU to forget that the host waits once.
  const std::int64_t size = device.kind() == DeviceKind::cuda ? 8192 : 512;
  const Tensor a = Tensor::zeros({size, size}, dtype, device), b = a.clone(), c = a.clone();
  return 2.0 * std::pow(static_cast<double>(size), 3) /
         best_of(6, c, [&] { kernels_of(a).gemm(a, Transpose::no, b, Transpose::yes, c, Write::overwrite); });
}

}  // namespace conclave
