// BackgroundTask: one piece of work on a thread of its own, whose end may be asked for or waited for. The
// work calls neither MPI nor HDF5, since neither is made for several threads here.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <thread>

#include "parallel/agreement.h"

namespace conclave {

class BackgroundTask {
 public:
  /// A thread that cannot be started is a failure of the work.
  explicit BackgroundTask(std::function<void()> work) {
    const std::optional<Error> not_started = conclave::failure_of([&] {
      thread_ = std::thread([this, work = std::move(work)] {
        failure_ = conclave::failure_of(work);
        finished_.store(true, std::memory_order_release);
      });
    });
    if (!not_started) return;
    failure_ = not_started;
    finished_ = true;
  }
  ~BackgroundTask() { wait(); }
  BackgroundTask(const BackgroundTask&) = delete;
  BackgroundTask& operator=(const BackgroundTask&) = delete;

  bool finished() const { return finished_.load(std::memory_order_acquire); }
  void wait() {
    if (thread_.joinable()) thread_.join();
  }
  /// Returns what the work threw, after it is finished.
  const std::optional<Error>& failure() const { return failure_; }

 private:
  std::optional<Error> failure_;
  std::atomic<bool> finished_{false};
  std::thread thread_;  // last: it uses the others
};

}  // namespace conclave
