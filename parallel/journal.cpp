#include "parallel/journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <new>
#include <sstream>

#include "framework/base/error.h"

namespace conclave {
namespace {

constexpr std::array<char, 8> magic = {'r', 'a', 'n', 'k', '-', '0', '0', '1'};

std::filesystem::path path_of(const std::filesystem::path& directory, int rank) {
  char name[32];
  std::snprintf(name, sizeof name, "rank-%05d", rank);
  return directory / name;
}

std::int64_t now_nanoseconds() {
  std::timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// Process ids mean something only inside one of these.
std::int64_t own_process_namespace() {
  struct ::stat status {};
  return ::stat("/proc/self/ns/pid", &status) == 0 ? static_cast<std::int64_t>(status.st_ino) : 0;
}

std::array<char, 64> own_host() {
  std::array<char, 64> host{};
  ::gethostname(host.data(), host.size() - 1);
  return host;
}

}  // namespace

const char* name_of(Activity activity) {
  switch (activity) {
    case Activity::starting:
      return "starting";
    case Activity::data:
      return "data";
    case Activity::counting:
      return "counting";
    case Activity::forward:
      return "forward";
    case Activity::backward:
      return "backward";
    case Activity::optimizer:
      return "optimizer";
    case Activity::checking:
      return "checking";
    case Activity::evaluating:
      return "evaluating";
    case Activity::saving:
      return "saving";
  }
  return "unknown";
}

bool Members::contain(std::int64_t rank) const {
  return stride > 0 && rank >= first && (rank - first) % stride == 0 && (rank - first) / stride < size;
}

Journal::Journal(std::filesystem::path directory, int rank, int ranks)
    : directory_(std::move(directory)), path_(path_of(directory_, rank)) {
  const int file = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  const int open_error = errno;
  check(file >= 0, Fault::machine, path_.string(), " cannot be written: ", std::strerror(open_error));
  // Blocks are taken now: a full disk must be an error here and not a SIGBUS at some later store.
  const int full = ::posix_fallocate(file, 0, sizeof(JournalPage));
  void* memory = full == 0 ? ::mmap(nullptr, sizeof(JournalPage), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                           : MAP_FAILED;
  const int map_error = full == 0 ? errno : full;
  ::close(file);
  check(memory != MAP_FAILED, Fault::machine, path_.string(),
        " cannot be mapped: ", std::strerror(map_error));
  page_ = new (memory) JournalPage;
  page_->rank = rank;
  page_->ranks = ranks;
  page_->process = ::getpid();
  page_->process_namespace = own_process_namespace();
  page_->host = own_host();
  page_->magic = magic;
}

Journal::~Journal() {
  mark_leaving();
  // The run's directory may have been removed and begun anew by another run, which keeps a journal there too.
  const std::optional<RankRecord> there = read_journal(directory_, page_->rank);
  const bool ours = there && there->process == page_->process && there->host == page_->host.data() &&
                    there->process_namespace == page_->process_namespace;
  ::munmap(page_, sizeof(JournalPage));
  if (!ours) return;
  ::unlink(path_.c_str());
  ::rmdir(directory_.c_str());  // succeeds for the last one
}

std::int64_t Journal::enter(const JournalEntry& entry) {
  const std::int64_t number = page_->entered.load(std::memory_order_relaxed);
  JournalEntry& place = page_->ring[static_cast<std::size_t>(number % journal_entries)];
  place = entry;
  place.entered = now_nanoseconds();
  place.left = 0;
  page_->entered.store(number + 1, std::memory_order_release);
  note_progress();
  return number;
}

void Journal::wait(std::int64_t number) {
  page_->waiting.store(number, std::memory_order_release);
}

void Journal::leave(std::int64_t number) {
  // A request may be completed long after its entry has been written over.
  if (page_->entered.load(std::memory_order_relaxed) - number <= journal_entries)
    page_->ring[static_cast<std::size_t>(number % journal_entries)].left = now_nanoseconds();
  page_->waiting.store(-1, std::memory_order_release);
  note_progress();
}

void Journal::note(Activity activity, std::int64_t step) {
  page_->activity.store(static_cast<std::int32_t>(activity), std::memory_order_relaxed);
  page_->step.store(step, std::memory_order_relaxed);
  note_progress();
}

void Journal::publish() {
  ::msync(page_, sizeof(JournalPage), MS_SYNC);
}

void clear_journals(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::remove_all(directory, error);
  if (!error) std::filesystem::create_directories(directory, error);
  check(!error, Fault::machine, directory.string(), " cannot be made anew: ", error.message());
}

const JournalEntry* RankRecord::waits_in() const {
  if (waiting < 0 || entered - waiting > journal_entries) return nullptr;
  return &ring[static_cast<std::size_t>(waiting % journal_entries)];
}

const JournalEntry* RankRecord::last() const {
  return entered == 0 ? nullptr : &ring[static_cast<std::size_t>((entered - 1) % journal_entries)];
}

std::optional<RankRecord> read_journal(const std::filesystem::path& directory, int rank) {
  // Opened anew each time: that is when a network file system asks its server.
  const int file = ::open(path_of(directory, rank).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  alignas(JournalPage) std::array<std::byte, sizeof(JournalPage)> bytes;
  const ssize_t length = ::pread(file, bytes.data(), bytes.size(), 0);
  ::close(file);
  if (length != static_cast<ssize_t>(bytes.size())) return std::nullopt;
  const auto& page = *std::launder(reinterpret_cast<const JournalPage*>(bytes.data()));
  if (page.magic != magic || page.rank != rank) return std::nullopt;
  RankRecord record;
  record.rank = page.rank;
  record.ranks = page.ranks;
  record.process = page.process;
  record.process_namespace = page.process_namespace;
  record.host = page.host.data();
  record.heartbeat = page.heartbeat;
  record.entered = page.entered;
  record.waiting = page.waiting;
  record.step = page.step;
  record.quiet_seconds = static_cast<double>(page.quiet_milliseconds) / 1000;
  record.activity = static_cast<Activity>(std::clamp<std::int32_t>(page.activity, 0, activities - 1));
  record.leaving = page.leaving != 0;
  record.ring = page.ring;
  for (JournalEntry& entry : record.ring) {  // of another rank: read as text only up to their size
    entry.name.back() = '\0';
    entry.operation.back() = '\0';
    entry.purpose.back() = '\0';
  }
  return record;
}

int ranks_in_journals(const std::filesystem::path& directory) {
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory, error)) {
    int rank = -1;
    if (std::sscanf(file.path().filename().c_str(), "rank-%d", &rank) != 1) continue;
    if (const std::optional<RankRecord> record = read_journal(directory, rank)) return record->ranks;
  }
  return 0;
}

bool process_is_gone(const RankRecord& record) {
  if (record.process <= 0 || record.process_namespace != own_process_namespace() ||
      record.host != own_host().data())
    return false;
  if (::kill(static_cast<pid_t>(record.process), 0) != 0) return errno == ESRCH;
  // One that has ended and was not waited for yet: "4242 (name) Z ..."
  std::ifstream status(join_text("/proc/", record.process, "/stat"));
  std::ostringstream content;  // iterators would throw where the process ends while it is read
  content << status.rdbuf();
  const std::string text = content.str();
  const std::size_t bracket = text.rfind(')');
  return bracket != std::string::npos && bracket + 2 < text.size() &&
         (text[bracket + 2] == 'Z' || text[bracket + 2] == 'X');
}

}  // namespace conclave
