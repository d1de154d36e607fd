// Watchdog: a thread of every rank that notices when the rank makes no progress for too long. It finds out
// from all ranks' journals which rank waits for which, says so once per job and ends the job. It never calls
// MPI, inside of which the main thread may be stuck. Its clock runs only while it runs itself, so time in
// which the whole job was stopped does not count.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "parallel/journal.h"

namespace conclave {

struct WatchdogOptions {
  double seconds = 600;          // without an event in the journal
  std::filesystem::path report;  // receives the last collectives of every rank
  /// It is called on the watchdog's thread, on one rank of the job, with the one sentence to print.
  std::function<void(const std::string& sentence)> say;
  /// Ends this process, and so the job; must not return. It is called on every rank that was alarmed.
  std::function<void()> end;
};

class Watchdog {
 public:
  /// Watches from now on. The journal must outlive this.
  Watchdog(Journal& journal, WatchdogOptions options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  /// Returns the seconds between two looks.
  double tick() const { return std::clamp(options_.seconds / 10, 0.05, 1.0); }
  void run();
  void beat();
  /// Beats for so many seconds; returns false as soon as the rank goes on after all.
  bool still_quiet_after(double seconds, std::int64_t events);
  void alarm(std::int64_t events);

  Journal& journal_;
  WatchdogOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread thread_;  // last: it uses all of the above
};

/// A RankView is one rank of a stalled job as its journal tells.
struct RankView {
  RankRecord record;
  bool written = false;     // there is a journal
  bool responding = false;  // its watchdog thread runs
  bool gone = false;        // its process is known to be there no more
};

/// Returns the sentence about a stall. It names the collective that cannot be completed, its number and
/// purpose, which ranks are in it, which are not, and where those are. Where there are several such
/// collectives, it takes one that waits for a rank which itself waits for no other. The rest follow from it.
/// [ranks]
std::string describe_stall(const std::vector<RankView>& ranks);

/// Returns the last collectives of every rank, as a text for people.
std::string collectives_text(const std::vector<RankView>& ranks);

/// True for one caller per run: the process that may speak for the job's end.
bool claim_last_word(const std::filesystem::path& journals);

/// True where a process has claimed the last word.
bool last_word_was_spoken(const std::filesystem::path& journals);

/// Says what the journals know about ranks that died without a word: "rank 1 (process 4242 on node7) died: it
/// was in ...", or "" when none did. It looks only at processes of this machine.
std::string describe_dead_ranks(const std::filesystem::path& journals, int ranks);

}  // namespace conclave
