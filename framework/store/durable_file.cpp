#include "framework/store/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "framework/base/error.h"
#include "framework/store/lookup.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// The one check that every return code of the operating system passes through.
void check_system(bool good, const char* action, const fs::path& path) {
  if (good) return;
  const int code = errno;
  fail(Fault::machine, "Cannot ", action, " ", path.string(), ": ", std::strerror(code),
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

/// fsync that goes on after an interruption.
bool sync_descriptor(int file) {
  int result = 0;
  do result = ::fsync(file);
  while (result != 0 && errno == EINTR);
  return result == 0;
}

/// The directory that keeps the name of a path.
fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void remove_replaced(const fs::path& path) {
  std::error_code code;
  fs::remove_all(path, code);
  check(!code, Fault::machine, "Cannot remove ", path.string(), ", which was replaced: ", code.message(),
        ". Check the permissions of its directory.");
}

}  // namespace

fs::path partial_path(const fs::path& path) {
  return fs::path(path) += ".partial";
}

void make_directories(const fs::path& directory) {
  std::error_code code;
  fs::create_directories(directory, code);
  check(!code, Fault::machine, "Cannot create the directory ", directory.string(), ": ", code.message(),
        ". Choose an output directory that you may write to.");
}

void sync_to_disk(const fs::path& path) {
  const Descriptor file(path, O_RDONLY | O_CLOEXEC, "open for syncing");
  check_system(sync_descriptor(file.value()), "write to disk", path);
}

fs::path replaced_path(const fs::path& path) {
  return fs::path(path) += ".replaced";
}

void publish(const fs::path& partial, const fs::path& path) {
  if (!is_directory_there(path, Fault::machine)) {
    check_system(::rename(partial.c_str(), path.c_str()) == 0, "put in place", path);
    sync_to_disk(parent_of(path));
    return;
  }
  // A directory that is not empty cannot be renamed over, so the two change places in one atomic step.
  if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0) {
    sync_to_disk(parent_of(path));
    remove_replaced(partial);
  } else {
    check_system(errno == EINVAL || errno == ENOSYS, "put in place", path);
    replace_by_two_renames(partial, path);  // some network mounts
  }
}

void replace_by_two_renames(const fs::path& partial, const fs::path& path) {
  const fs::path aside = replaced_path(path);
  remove_replaced(aside);  // of a process killed here; the directory at path is whole
  check_system(::rename(path.c_str(), aside.c_str()) == 0, "move aside", path);
  if (::rename(partial.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::rename(aside.c_str(), path.c_str());  // where this fails too, the old one is still found at aside
    errno = code;
    check_system(false, "put in place", path);
  }
  sync_to_disk(parent_of(path));
  remove_replaced(aside);
}

DurableFile::DurableFile(const fs::path& path)
    : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  check_system(file_ >= 0, "create", path_);
}

DurableFile::~DurableFile() {
  ::close(file_);
}

void DurableFile::write(const void* data, std::size_t bytes) {
  for (auto next = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t written = ::write(file_, next, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written == 0) errno = EIO;  // no progress and no reason
    check_system(written > 0, "write", path_);
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void DurableFile::seek(std::size_t offset) {
  check_system(::lseek(file_, static_cast<off_t>(offset), SEEK_SET) >= 0, "write", path_);
}

void DurableFile::begin_sync() {
  const int before = errno;
  ::sync_file_range(file_, 0, 0, SYNC_FILE_RANGE_WRITE);
  errno = before;
}

void DurableFile::sync() {
  check_system(sync_descriptor(file_), "write to disk", path_);
}

void write_text_durably(const fs::path& path, std::string_view text) {
  const fs::path partial = partial_path(path);
  {
    DurableFile file(partial);
    file.write(text.data(), text.size());
    file.sync();
  }
  publish(partial, path);
}

void check_free_space(const fs::path& directory, std::size_t bytes) {
  std::error_code code;
  const fs::space_info space = fs::space(directory, code);
  if (code) return;  // an early warning only: the write itself is checked
  check(space.available >= bytes, Fault::machine, "The file system of ", directory.string(), " has ",
        space.available, " free bytes, and ", bytes,
        " more are needed. Free some space, or lower checkpoint.keep.");
}

}  // namespace conclave
