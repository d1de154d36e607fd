// A command that runs beside the test, and the processes of `conclave train` somewhere below it, to be killed
// at will. Whatever still runs when the object goes is killed with it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace conclave {

class LaunchedJob {
 public:
  /// Runs a shell command; both its outputs go to this file.
  LaunchedJob(const std::string& command, std::filesystem::path output);
  ~LaunchedJob();
  LaunchedJob(const LaunchedJob&) = delete;
  LaunchedJob& operator=(const LaunchedJob&) = delete;

  /// The processes of the ranks that are alive now, in the order of their ids.
  std::vector<pid_t> ranks() const;
  /// Waits until `count` ranks are there; fewer when the job has ended before.
  std::vector<pid_t> wait_for_ranks(std::size_t count);
  /// True where the job ends before this moment.
  bool ends_before(std::chrono::steady_clock::time_point moment);
  /// The exit code, 128 + n for signal n, when it has ended. A job that takes more than a minute is killed.
  int wait();
  std::string output() const;

 private:
  pid_t process_;
  std::filesystem::path output_;
  std::optional<int> exit_code_;
};

}  // namespace conclave
