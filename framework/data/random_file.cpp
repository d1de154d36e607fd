#include "framework/data/random_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "framework/base/error.h"

namespace conclave {
namespace {

std::string reason(int code) {
  return std::generic_category().message(code);
}

int open_for_reading(const std::string& path) {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hang us
}

/// A mixture of many files needs more descriptors than a shell gives by default.
bool raise_open_files() {
  ::rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

}  // namespace

RandomFile::RandomFile(const std::string& path, std::string_view meaning)
    : name_(join_text(meaning, " ", path)), descriptor_(open_for_reading(path)) {
  if (descriptor_ < 0 && errno == EMFILE && raise_open_files()) descriptor_ = open_for_reading(path);
  check(descriptor_ >= 0, Fault::data, name_, " cannot be opened: ", reason(errno));
  struct ::stat status {};
  const bool known = ::fstat(descriptor_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    fail(Fault::data, name_, " is ", known && S_ISDIR(status.st_mode) ? "a directory" : "not a regular file",
         "; a regular file is expected");
  }
  size_ = status.st_size;
}

RandomFile::~RandomFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void RandomFile::read(std::int64_t offset, std::int64_t bytes, void* out) const {
  check(offset >= 0 && bytes >= 0 && bytes <= size_ - offset, "RandomFile: bytes ", offset, " and ", bytes,
        " more were asked for of ", name_, ", which has ", size_);
  auto* to = static_cast<char*>(out);
  for (std::int64_t done = 0; done < bytes;) {
    const ssize_t got =
        ::pread(descriptor_, to + done, static_cast<std::size_t>(bytes - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    const int error = errno;
    check(got >= 0, Fault::machine, name_, " cannot be read at byte ", offset + done, ": ", reason(error));
    check(got > 0, Fault::data, name_, " ends at byte ", offset + done, " now, but had ", size_,
          " bytes when it was opened: it was cut short while it was in use. Restore it and run the same "
          "command "
          "again.");
    done += got;
  }
}

}  // namespace conclave
