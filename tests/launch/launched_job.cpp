#include "tests/launch/launched_job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <thread>

namespace conclave {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// Reads as much as there is. The file of a process that ends meanwhile gives an error in the middle of
/// reading, which iterators of the stream's buffer would throw.
std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The parent of each process of the machine.
std::map<pid_t, pid_t> parents() {
  std::map<pid_t, pid_t> found;
  std::error_code code;
  for (fs::directory_iterator entry("/proc", code), end; !code && entry != end; entry.increment(code)) {
    const pid_t process = std::atoi(entry->path().filename().c_str());
    if (process <= 0) continue;
    const std::string stat = content_of(entry->path() / "stat");  // "7 (name) S 1 ..."
    const std::size_t name_end = stat.rfind(") ");
    if (name_end != std::string::npos && stat[name_end + 2] != 'Z')
      found[process] = std::atoi(stat.c_str() + name_end + 4);
  }
  return found;
}

bool is_training(pid_t process) {
  const std::string words = content_of("/proc/" + std::to_string(process) + "/cmdline");
  const std::size_t end = words.find('\0');
  return end != std::string::npos && words.substr(0, end).ends_with("conclave") &&
         words.compare(end + 1, 6, std::string("train\0", 6)) == 0;
}

}  // namespace

LaunchedJob::LaunchedJob(const std::string& command, fs::path output)
    : process_(::fork()), output_(std::move(output)) {
  if (process_ != 0) return;
  const int file = ::open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, 0);
  ::dup2(file, 1);
  ::dup2(file, 2);
  ::execl("/bin/bash", "bash", "-c", ("exec " + command).c_str(), nullptr);
  ::_exit(127);
}

LaunchedJob::~LaunchedJob() {
  if (exit_code_) return;
  for (const pid_t rank : ranks()) ::kill(rank, SIGKILL);
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
}

std::vector<pid_t> LaunchedJob::ranks() const {
  const std::map<pid_t, pid_t> parent_of = parents();
  std::vector<pid_t> found;
  for (const auto& [process, parent] : parent_of) {
    pid_t above = process;
    while (above != process_ && parent_of.contains(above)) above = parent_of.at(above);
    if (above == process_ && is_training(process)) found.push_back(process);
  }
  return found;
}

std::vector<pid_t> LaunchedJob::wait_for_ranks(std::size_t count) {
  std::vector<pid_t> found = ranks();
  while (found.size() < count && !ends_before(Clock::now() + std::chrono::milliseconds(2))) found = ranks();
  return found;
}

bool LaunchedJob::ends_before(Clock::time_point moment) {
  while (!exit_code_) {
    int status = 0;
    if (::waitpid(process_, &status, WNOHANG) == process_)
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    else if (Clock::now() >= moment)
      return false;
    else
      std::this_thread::sleep_for(
          std::min<Clock::duration>(std::chrono::milliseconds(2), moment - Clock::now()));
  }
  return true;
}

int LaunchedJob::wait() {
  if (!ends_before(Clock::now() + std::chrono::minutes(1))) {
    for (const pid_t rank : ranks()) ::kill(rank, SIGKILL);
    ::kill(process_, SIGKILL);
    ends_before(Clock::now() + std::chrono::minutes(1));
  }
  return exit_code_.value_or(-1);
}

std::string LaunchedJob::output() const {
  return content_of(output_);
}

}  // namespace conclave
