#include "launch/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "framework/base/error.h"

namespace conclave {
namespace {

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

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  check(!error, Fault::request, "output: the directory ", directory.string(), " cannot be created (",
        error.message(), "); choose a writable place with output=DIRECTORY");
  file_ = ::open((directory / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const int open_error = errno;
  check(file_ >= 0, Fault::request, "output: ", directory.string(), " cannot be written (",
        std::strerror(open_error), "); choose a writable place with output=DIRECTORY");
  if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
    const std::string holder = content_of(file_);
    ::close(file_);
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

}  // namespace conclave
