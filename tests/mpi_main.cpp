// GoogleTest's main for programs of several MPI ranks. Rank 0 prints as usual, the others print only their
// failures, marked with the rank. A test that fails on one rank fails on all, so all ranks end with the same
// exit code. A rank that leaves a test early by a failure, while others wait for it in a collective, ends the
// job after a few seconds; so does a test that takes longer than CONCLAVE_TEST_SECONDS (60), and every rank
// says where it is.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "parallel/agreement.h"
#include "parallel/mpi.h"
#include "tests/mpi_world.h"

namespace conclave::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

std::shared_ptr<Communicator> world;

/// Ends the process when one activity takes too long. It does not call MPI, which the main thread may be
/// inside of: mpirun ends the other ranks when one leaves.
class Watchdog {
 public:
  Watchdog(int rank, seconds limit) : rank_(rank), limit_(limit), thread_([this] { run(); }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  void begin(const std::string& activity) {
    const std::lock_guard lock(mutex_);
    activity_ = activity;
    begin_ = Clock::now();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!ended_) {
      if (Clock::now() - begin_ > limit_) {
        std::fprintf(stderr, "[rank %d] watchdog: still %s after %lld seconds\n", rank_, activity_.c_str(),
                     static_cast<long long>(limit_.count()));
        std::fflush(nullptr);
        std::this_thread::sleep_for(seconds(1));  // the other ranks say where they are
        std::_Exit(1);
      }
      changed_.wait_for(lock, std::chrono::milliseconds(100));
    }
  }

  int rank_;
  seconds limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::string activity_ = "starting";
  Clock::time_point begin_ = Clock::now();
  std::thread thread_;  // last: it uses all of the above
};

/// Prints the failures of a rank other than 0.
class FailurePrinter final : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& part) override {
    if (!part.failed()) return;
    std::fprintf(stderr, "[rank %d] %s:%d: failure\n%s\n", world->rank(),
                 part.file_name() ? part.file_name() : "?", part.line_number(), part.message());
    std::fflush(stderr);
  }
};

/// Meets the other ranks at the end of every test, on a communicator of its own so that nothing mixes with
/// collectives that a failing test has left behind.
class EndOfTest final : public testing::EmptyTestEventListener {
 public:
  EndOfTest(std::shared_ptr<Communicator> meeting, Watchdog& watchdog)
      : meeting_(std::move(meeting)), watchdog_(watchdog) {}
  bool other_ranks_failed() const { return other_ranks_failed_; }

 private:
  static constexpr seconds patience{3};

  static std::string name_of_test(const testing::TestInfo& info) {
    return std::string(info.test_suite_name()) + "." + info.name();
  }
  void OnTestStart(const testing::TestInfo& info) override {
    watchdog_.begin("in test " + name_of_test(info));
  }

  void OnTestEnd(const testing::TestInfo& info) override {
    const std::string name = name_of_test(info);
    watchdog_.begin("at the end of test " + name + ", waiting for other ranks");
    const std::int64_t ranks = meeting_->size();
    const bool failed_here = info.result()->Failed();
    std::vector<std::int64_t> own(static_cast<std::size_t>(ranks), 0);
    own[static_cast<std::size_t>(meeting_->rank())] = failed_here;
    const Tensor failed = Tensor::from(own, {ranks});
    Request request = meeting_->start_all_reduce(failed, ReduceOp::maximum, Purpose::agreement);
    const auto begin = Clock::now();
    while (!request.test()) {
      if (failed_here && Clock::now() - begin > patience) {
        std::fprintf(stderr,
                     "[rank %d] failed in test %s and other ranks do not come to its end; ending the job\n",
                     meeting_->rank(), name.c_str());
        std::fflush(nullptr);
        abort_job(1);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    std::string failing;
    const auto flags = failed.to_host<std::int64_t>();
    for (std::size_t rank = 0; rank < flags.size(); ++rank)
      if (flags[rank] != 0) failing += join_text(" ", rank);
    if (failing.empty() || failed_here) return;
    other_ranks_failed_ = true;
    if (meeting_->rank() == 0) ADD_FAILURE() << "failed on rank" << failing;
  }

  std::shared_ptr<Communicator> meeting_;
  Watchdog& watchdog_;
  bool other_ranks_failed_ = false;
};

seconds test_limit() {
  const char* text = std::getenv("CONCLAVE_TEST_SECONDS");
  const long limit = text ? std::strtol(text, nullptr, 10) : 0;
  return seconds(limit > 0 ? limit : 60);
}

int run_all_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // Started by itself, a program runs as one rank and needs no MPI at all.
  std::optional<MpiEnvironment> mpi;
  if (launched_under_mpi()) mpi.emplace();
  world = mpi ? world_communicator() : self_communicator();
  int code = 0;
  {
    Watchdog watchdog(world->rank(), test_limit());
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    if (world->rank() != 0) {
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new FailurePrinter);
    }
    auto* end_of_test = new EndOfTest(world->split(world->every_rank(), "end of test"), watchdog);
    listeners.Append(end_of_test);
    code = RUN_ALL_TESTS() != 0 || end_of_test->other_ranks_failed() ? 1 : 0;
    delete listeners.Release(end_of_test);
  }
  world.reset();
  return code;
}

}  // namespace

std::shared_ptr<Communicator> mpi_world() {
  return world;
}

std::string why_no_cuda_for_all() {
  static const std::string reason = [] {
    const int local_rank = world->node_place().rank;
    try {
      agree(*world, [&] { cuda_device(local_rank); });
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  }();
  return reason;
}

std::vector<Device*> mpi_devices() {
  std::vector<Device*> devices{&cpu_device(), &emulated_device()};
  if (why_no_cuda_for_all().empty()) devices.push_back(&cuda_device());
  return devices;
}

}  // namespace conclave::test

/// Asked by LeakSanitizer: MPI's modules leak and are unloaded before it looks, so no list of names can
/// excuse them. Tests without MPI look for our leaks.
extern "C" int __lsan_is_turned_off() {
  return 1;
}

int main(int argc, char** argv) {
  try {
    return conclave::test::run_all_tests(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "the test program failed outside of its tests: %s\n", error.what());
    if (conclave::launched_under_mpi()) conclave::abort_job(1);
    return 1;
  }
}
