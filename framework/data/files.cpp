// POSIX calls behind MappedFile and OutputFile; each result is looked at.
#include "framework/data/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "framework/base/error.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CONCLAVE_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define CONCLAVE_ADDRESS_SANITIZER
#endif
#ifdef CONCLAVE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace conclave {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

std::string reason(int code) {
  return std::generic_category().message(code);
}

/// A path that cannot be written is a wrong request; a disk that is full or broken is the machine's failure.
Fault output_fault(int code) {
  const bool machine = code == ENOSPC || code == EDQUOT || code == EIO || code == ENOMEM || code == EMFILE;
  return machine ? Fault::machine : Fault::request;
}

constexpr const char* partial_mark = ".partial-";

/// The temporary names of the files that are being written; a signal handler reads them.
std::array<std::atomic<const char*>, 32> unfinished;
static_assert(std::atomic<const char*>::is_always_lock_free);

void note_unfinished(const char* temporary) {
  for (std::atomic<const char*>& place : unfinished) {
    const char* none = nullptr;
    if (place.compare_exchange_strong(none, temporary)) return;
  }
}

void forget_unfinished(const char* temporary) {
  for (std::atomic<const char*>& place : unfinished) {
    const char* own = temporary;
    if (place.compare_exchange_strong(own, nullptr)) return;
  }
}

/// Whoever writes a temporary file holds its lock, so one that can be locked has been left by a process that
/// is gone. Where the file system gives no locks, it stays.
void remove_if_left(const std::filesystem::path& temporary) {
  const int descriptor = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (descriptor < 0) return;
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) ::unlink(temporary.c_str());
  ::close(descriptor);
}

void remove_left_files(const std::string& path) {
  const std::filesystem::path file(path);
  const std::string begin = file.filename().string() + partial_mark;
  std::error_code code;
  for (std::filesystem::directory_iterator entry(file.has_parent_path() ? file.parent_path() : ".", code);
       !code && entry != end(entry); entry.increment(code)) {
    const std::string name = entry->path().filename().string();
    const bool numbered = name.starts_with(begin) && name.size() > begin.size() &&
                          name.find_first_not_of("0123456789", begin.size()) == std::string::npos;
    if (numbered && entry->is_regular_file(code)) remove_if_left(entry->path());
  }
}

/// Under AddressSanitizer a read behind the end of a mapped file is an error too, and not a zero of its last
/// page.
void guard_end([[maybe_unused]] const void* data, [[maybe_unused]] std::size_t size,
               [[maybe_unused]] bool guarded) {
#ifdef CONCLAVE_ADDRESS_SANITIZER
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const char* end = static_cast<const char*>(data) + size;
  const std::size_t rest = (page - size % page) % page;
  if (guarded)
    ASAN_POISON_MEMORY_REGION(end, rest);
  else
    ASAN_UNPOISON_MEMORY_REGION(end, rest);
#endif
}

}  // namespace

MappedFile::MappedFile(const std::string& path, std::string_view meaning) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hang us
  check(descriptor >= 0, Fault::data, meaning, " ", path, " cannot be opened: ", reason(errno));
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  const bool regular = known && S_ISREG(status.st_mode);
  void* data = nullptr;
  int map_error = 0;
  if (regular && status.st_size > 0) {
    data = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) map_error = errno;
  }
  ::close(descriptor);
  check(regular, Fault::data, meaning, " ", path, " is ",
        known && S_ISDIR(status.st_mode) ? "a directory" : "not a regular file",
        "; a regular file is expected");
  check(map_error == 0, Fault::machine, meaning, " ", path, " cannot be mapped: ", reason(map_error));
  data_ = data;
  size_ = data == nullptr ? 0 : static_cast<std::size_t>(status.st_size);
  if (data_ != nullptr) guard_end(data_, size_, true);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  guard_end(data_, size_, false);
  ::munmap(data_, size_);
}

OutputFile::OutputFile(std::string path)
    : path_(std::move(path)), temporary_(join_text(path_, partial_mark, ::getpid())) {
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  std::error_code code;
  if (!folder.empty()) std::filesystem::create_directories(folder, code);
  check(!code, output_fault(code.value()), "the folder ", folder.string(), " for ", path_,
        " cannot be made: ", code.message());
  check(!std::filesystem::is_directory(path_, code), Fault::request, path_,
        " is a directory; the name of a file to write is expected");
  remove_left_files(path_);
  open_temporary();
  buffer_.reserve(buffer_bytes);
}

void OutputFile::open_temporary() {
  while (true) {
    note_unfinished(temporary_.c_str());  // before it is there, as a signal may come at any moment
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    const int error = errno;
    if (descriptor_ < 0) forget_unfinished(temporary_.c_str());
    check(descriptor_ >= 0, output_fault(error), path_, " cannot be written: ", reason(error));
    if (::flock(descriptor_, LOCK_EX) != 0) return;
    lock_ = ::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0);
    // Another process may have taken it for a left one before it was locked.
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || status.st_nlink > 0) return;
    forget_unfinished(temporary_.c_str());
    ::close(descriptor_);
    ::close(lock_);
  }
}

OutputFile::~OutputFile() {
  if (!published_) ::unlink(temporary_.c_str());
  forget_unfinished(temporary_.c_str());
  for (const int descriptor : {descriptor_, lock_})
    if (descriptor >= 0) ::close(descriptor);
}

void OutputFile::write(const void* bytes, std::size_t size) {
  const char* next = static_cast<const char*>(bytes);
  while (size > 0) {
    const std::size_t part = std::min(size, buffer_bytes - buffer_.size());
    buffer_.insert(buffer_.end(), next, next + part);
    next += part;
    size -= part;
    if (buffer_.size() == buffer_bytes) flush();
  }
}

void OutputFile::flush() {
  check(descriptor_ >= 0, "OutputFile: bytes came for ", path_, " after it was closed");
  std::size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t written = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (written < 0 && errno == EINTR) continue;
    const int error = errno;
    check(written >= 0, Fault::machine, "writing ", path_, " failed: ", reason(error), "; nothing was kept");
    done += static_cast<std::size_t>(written);
  }
  buffer_.clear();
}

void OutputFile::close() {
  if (descriptor_ < 0) return;
  flush();
  // A file system that knows no fsync says EINVAL; nothing is lost by that.
  const bool synchronized = ::fsync(descriptor_) == 0 || errno == EINVAL;
  const int sync_error = errno;
  const bool closed = ::close(descriptor_) == 0;
  const int close_error = errno;
  descriptor_ = -1;
  check(synchronized && closed, Fault::machine, "writing ", path_,
        " failed: ", reason(synchronized ? close_error : sync_error), "; nothing was kept");
}

void OutputFile::publish() {
  close();
  const bool renamed = ::rename(temporary_.c_str(), path_.c_str()) == 0;
  const int error = errno;
  check(renamed, output_fault(error), temporary_, " cannot be renamed to ", path_, ": ", reason(error));
  published_ = true;
  forget_unfinished(temporary_.c_str());
}

void remove_unfinished_files() noexcept {
  for (std::atomic<const char*>& place : unfinished)
    if (const char* temporary = place.load()) ::unlink(temporary);
}

}  // namespace conclave
