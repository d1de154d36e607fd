#include "tests/framework/store/system_calls.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace conclave {
namespace {

std::atomic<bool> watching{false};
std::mutex mutex;
std::string below_path;
SystemCallHook current;

std::string path_of(int file) {
  char target[PATH_MAX];
  const ssize_t length =
      ::readlink(("/proc/self/fd/" + std::to_string(file)).c_str(), target, sizeof target - 1);
  return length > 0 ? std::string(target, static_cast<std::size_t>(length)) : "";
}

Verdict verdict_of(const SystemCall& call) {
  const std::lock_guard lock(mutex);
  if (!current || call.path.find(below_path) == std::string::npos) return {};
  return current(call);
}

int refuse(int error) {
  errno = error;
  return -1;
}

}  // namespace

void watch_system_calls(const std::string& below, SystemCallHook hook) {
  const std::lock_guard lock(mutex);
  below_path = below;
  current = std::move(hook);
  watching = static_cast<bool>(current);
}

}  // namespace conclave

using conclave::Verdict;

extern "C" {

ssize_t write(int file, const void* data, size_t bytes) {
  if (conclave::watching) {
    const Verdict verdict = conclave::verdict_of({"write", conclave::path_of(file), "", bytes});
    if (verdict.error != 0) return conclave::refuse(verdict.error);
    if (verdict.interrupted) return conclave::refuse(EINTR);
    if (verdict.shortened && bytes > 1) bytes /= 2;
  }
  return syscall(SYS_write, file, data, bytes);
}

int fsync(int file) {
  if (conclave::watching) {
    const Verdict verdict = conclave::verdict_of({"fsync", conclave::path_of(file), ""});
    if (verdict.error != 0) return conclave::refuse(verdict.error);
    if (verdict.interrupted) return conclave::refuse(EINTR);
  }
  return static_cast<int>(syscall(SYS_fsync, file));
}

int rename(const char* from, const char* to) noexcept {
  if (conclave::watching)
    if (const Verdict verdict = conclave::verdict_of({"rename", from, to}); verdict.error != 0)
      return conclave::refuse(verdict.error);
  return static_cast<int>(syscall(SYS_rename, from, to));
}

int renameat2(int from_directory, const char* from, int to_directory, const char* to,
              unsigned int flags) noexcept {
  if (conclave::watching)
    if (const Verdict verdict = conclave::verdict_of({"exchange", from, to}); verdict.error != 0)
      return conclave::refuse(verdict.error);
  return static_cast<int>(syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
}
}
