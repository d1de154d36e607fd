// Journal: a file that tells what a rank is doing. Other ranks can read it when this rank no longer answers,
// be it waiting, stopped or dead. It is one page of fixed size per rank, mapped into memory, so that a note
// is a few stores and survives a SIGKILL. The thread that calls collectives writes it. The watchdogs of all
// ranks read it, on other nodes through a shared file system. The journal records and judges nothing by
// itself.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <type_traits>

namespace conclave {

/// A rank is in one of these parts of a run.
enum class Activity { starting, data, counting, forward, backward, optimizer, checking, evaluating, saving };
constexpr int activities = 9;
const char* name_of(Activity activity);

/// Members are the ranks of a communicator, counted in the job: first, first + stride, and so on. A stride of
/// 0 means some other set, of which only the size is known.
struct Members {
  std::int32_t first = 0, stride = 1, size = 1;
  bool contain(std::int64_t rank) const;
  auto operator<=>(const Members&) const = default;
};

/// An entry describes a collective that a rank has entered.
struct JournalEntry {
  std::uint64_t communicator = 0;  // equal on its members, and different from that of any other set of ranks
  std::int64_t sequence = 0;       // this communicator's collectives, counted from 1
  std::int64_t bytes = 0;          // that this rank handed over
  std::int64_t entered = 0;        // nanoseconds since 1970
  std::int64_t left = 0;           // likewise; 0: still in it
  Members members;
  std::array<char, 20> name{};       // of the communicator; ends with a zero
  std::array<char, 28> operation{};  // all_reduce ...
  std::array<char, 16> purpose{};
};

constexpr int journal_entries = 64;

/// The page is the content of the file. Its counters are atomic because two threads of the rank use them.
struct JournalPage {
  std::array<char, 8> magic{};
  std::int32_t rank = 0, ranks = 0;
  std::int64_t process = 0, process_namespace = 0;
  std::array<char, 64> host{};
  std::atomic<std::int64_t> heartbeat{0};           // grows while the rank's watchdog thread runs
  std::atomic<std::int64_t> quiet_milliseconds{0};  // without an event, as its watchdog measured
  std::atomic<std::int64_t> events{0};              // grows with everything that is noted
  std::atomic<std::int64_t> entered{0};             // collectives so far; number i is in ring[i % 64]
  std::atomic<std::int64_t> waiting{-1};            // number of the collective it waits in, -1: none
  std::atomic<std::int64_t> step{0};
  std::atomic<std::int32_t> activity{0};
  std::atomic<std::int32_t> leaving{0};  // 1: it ends by its own will
  std::array<JournalEntry, journal_entries> ring{};
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<JournalPage>);

class Journal {
 public:
  /// Creates DIRECTORY/rank-00000 for this rank; the directory must exist. Throws Fault::machine where it
  /// cannot be written.
  Journal(std::filesystem::path directory, int rank, int ranks);
  /// Removes the file, since this is an orderly end.
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// Notes that a collective begins, and returns its number. Entered and left times are filled in here.
  std::int64_t enter(const JournalEntry& entry);
  /// Notes that the rank waits until this collective is complete.
  void wait(std::int64_t number);
  void leave(std::int64_t number);
  /// Notes that the rank goes on to another part of its work; `step` counts from 1.
  void note(Activity activity, std::int64_t step);
  /// Notes progress that has no name of its own.
  void note_progress() { page_->events.fetch_add(1, std::memory_order_relaxed); }
  /// Notes that this rank is about to end by its own will, so that no other rank reports it as dead. It may
  /// be called from any thread.
  void mark_leaving() { page_->leaving.store(1); }

  JournalPage& page() { return *page_; }
  const std::filesystem::path& directory() const { return directory_; }
  /// Brings the page to a shared file system's server.
  void publish();

 private:
  std::filesystem::path directory_, path_;
  JournalPage* page_ = nullptr;
};

/// Removes the journals of an earlier run, and makes the directory. One rank calls it before any rank opens
/// its own.
void clear_journals(const std::filesystem::path& directory);

/// A RankRecord is a plain copy of a page, from its file.
struct RankRecord {
  int rank = 0, ranks = 0;
  std::int64_t process = 0, process_namespace = 0;
  std::string host;
  std::int64_t heartbeat = 0, entered = 0, waiting = -1, step = 0;
  double quiet_seconds = 0;
  Activity activity = Activity::starting;
  bool leaving = false;
  std::array<JournalEntry, journal_entries> ring{};

  /// Returns the collective it waits in, or null.
  const JournalEntry* waits_in() const;
  /// Returns the last collective it entered, or null.
  const JournalEntry* last() const;
};

/// Returns how many ranks the run has whose journals these are; 0 where there are none.
int ranks_in_journals(const std::filesystem::path& directory);

/// Returns nothing where the file is missing or is no journal: the rank has ended in order, or never began.
std::optional<RankRecord> read_journal(const std::filesystem::path& directory, int rank);

/// True where the process that wrote a journal on this very machine is gone; false where that cannot be known
/// here.
bool process_is_gone(const RankRecord& record);

}  // namespace conclave
