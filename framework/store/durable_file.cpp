#include "framework/store/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "framework/base/error.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// The one check that every return code of the operating system passes through.
void check_system(bool good, const char* action, const fs::path& path) {
  if (good) return;
  const int code = errno;
  fail(Fault::machine, "Cannot ", action, " ", path, ": ", std::strerror(code),
       ". Check that the directory exists, is writable and has free space.");
}

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags, const char* action)
      : value_(::open(path.c_str(), flags, 0666)) {
    check_system(value_ >= 0, action, path);
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

}  // namespace

fs::path partial_path(const fs::path& path) {
  return fs::path(path) += ".partial";
}

void make_directories(const fs::path& directory) {
  std::error_code code;
  fs::create_directories(directory, code);
  check(!code, Fault::machine, "Cannot create the directory ", directory, ": ", code.message(),
        ". Choose an output directory that you may write to.");
}

void sync_to_disk(const fs::path& path) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC, "open for syncing");
  check_system(::fsync(file.value()) == 0, "write to disk", path);
}

void publish(const fs::path& partial, const fs::path& path) {
  if (fs::is_directory(path)) {
    // A directory that is not empty cannot be renamed over, so the two change places in one atomic step.
    if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) != 0) {
      check_system(errno == EINVAL || errno == ENOSYS, "put in place", path);
      // A file system without the exchange (some network mounts): the old one steps aside, still complete.
      const fs::path aside = partial_path(fs::path(path) += ".replaced");
      fs::remove_all(aside);
      check_system(::rename(path.c_str(), aside.c_str()) == 0, "move aside", path);
      check_system(::rename(partial.c_str(), path.c_str()) == 0, "put in place", path);
      fs::remove_all(aside);
    }
    fs::remove_all(partial);
  } else {
    check_system(::rename(partial.c_str(), path.c_str()) == 0, "put in place", path);
  }
  sync_to_disk(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void write_text_durably(const fs::path& path, std::string_view text) {
  const fs::path partial = partial_path(path);
  {
    const Descriptor file(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, "create");
    while (!text.empty()) {
      const ssize_t written = ::write(file.value(), text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      check_system(written > 0, "write", partial);
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    check_system(::fsync(file.value()) == 0, "write to disk", partial);
  }
  publish(partial, path);
}

void check_free_space(const fs::path& directory, std::size_t bytes) {
  std::error_code code;
  const fs::space_info space = fs::space(directory, code);
  if (code) return;  // an early warning only: the write itself is checked
  check(space.available >= bytes, Fault::machine, "The file system of ", directory, " has ", space.available,
        " free bytes, and ", bytes, " more are needed. Free some space, or lower checkpoint.keep.");
}

}  // namespace conclave
