#include "launch/train/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "framework/base/error.h"

namespace conclave {
namespace {

constexpr const char* lock_name = ".lock";

/// "node12, process 4242, since 2026-01-31 12:00:00"
std::string own_identity() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  std::array<char, 32> time{};
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  std::strftime(time.data(), time.size(), "%Y-%m-%d %H:%M:%S", localtime_r(&now, &parts));
  return join_text(host.data(), ", process ", ::getpid(), ", since ", time.data());
}

std::string content_of(int file) {
  std::array<char, 512> text{};
  const ssize_t length = ::pread(file, text.data(), text.size(), 0);
  return {text.data(), static_cast<std::size_t>(length > 0 ? length : 0)};
}

}  // namespace

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) : directory_(directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  check(!error, Fault::request, "output: the directory ", directory.string(), " cannot be created (",
        error.message(), "); choose a writable place with output=DIRECTORY");
  file_ = ::open((directory / lock_name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const int open_error = errno;
  check(file_ >= 0, Fault::request, "output: ", directory.string(), " cannot be written (",
        std::strerror(open_error), "); choose a writable place with output=DIRECTORY");
  if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    const int lock_error = errno;
    const std::string holder = content_of(file_);
    ::close(file_);
    check(lock_error == EWOULDBLOCK, Fault::machine, "output: the file system of ", directory.string(),
          " gives no locks (flock: ", std::strerror(lock_error),
          "), so two runs could not be kept apart there; choose an output on another file system");
    fail(Fault::request, "output: another run writes into ", directory.string(), " (", holder,
         "); wait for it, stop it, or choose another output");
  }
  const std::string identity = own_identity();
  // Only a hint for whoever is refused; the lock itself is the kernel's.
  if (::ftruncate(file_, 0) != 0 || ::pwrite(file_, identity.data(), identity.size(), 0) < 0) errno = 0;
}

DirectoryLock::~DirectoryLock() {
  if (file_ >= 0) ::close(file_);
}

bool DirectoryLock::is_ours() const {
  struct ::stat held {
  }, there{};
  return ::fstat(file_, &held) == 0 && ::stat((directory_ / lock_name).c_str(), &there) == 0 &&
         held.st_dev == there.st_dev && held.st_ino == there.st_ino;
}

void DirectoryLock::check_ours() const {
  if (is_ours()) return;
  const int other = ::open((directory_ / lock_name).c_str(), O_RDONLY | O_CLOEXEC);
  const std::string holder = other < 0 ? "" : content_of(other);
  if (other >= 0) ::close(other);
  fail(Fault::machine, "output: ", directory_.string(), " was removed or moved while this run wrote into it",
       holder.empty() ? "" : ", and another run has it now (" + holder + ")",
       "; this run writes nothing more there. What it had saved is where the directory went; choose another "
       "output to begin again");
}

}  // namespace conclave
