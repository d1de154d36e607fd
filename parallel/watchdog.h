// Watchdog: a thread of every rank that notices when the rank makes no progress for too long, finds out from
// all ranks' journals who waits for whom, says so once per job and ends it. It never calls MPI, inside of
// which the main thread may be stuck. Its clock runs only while it runs itself: time in which the whole job
// was stopped counts for nobody.
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
  /// Called on the watchdog's thread, on one rank of the job, with the one sentence to print.
  std::function<void(const std::string& sentence)> say;
  /// Ends this process, and so the job; must not return. Called on every rank that was alarmed.
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
  /// Seconds between two looks.
  double tick() const { return std::clamp(options_.seconds / 10, 0.05, 1.0); }
  void run();
  void beat();
  /// Beats meanwhile; false as soon as the rank goes on after all.
  bool still_quiet_after(double seconds, std::int64_t events);
  void alarm(std::int64_t events);

  Journal& journal_;
  WatchdogOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread thread_;  // last: it uses all of the above
};

/// One rank of a stalled job as its journal tells.
struct RankView {
  RankRecord record;
  bool written = false;     // there is a journal
  bool responding = false;  // its watchdog thread runs
  bool gone = false;        // its process is known to be there no more
};

/// The sentence about a stall: the collective that cannot be completed, its number and purpose, which ranks
/// are in it, which are not and where those are. Of several such collectives, one that waits for a rank which
/// itself waits for nobody: the others follow from it. [ranks]
std::string describe_stall(const std::vector<RankView>& ranks);

/// The last collectives of every rank, as a text for people.
std::string collectives_text(const std::vector<RankView>& ranks);

/// Whether this process is the one that may speak for the job's end: true for one caller per run.
bool claim_last_word(const std::filesystem::path& journals);

/// Whether somebody has claimed it.
bool last_word_was_spoken(const std::filesystem::path& journals);

/// What the journals know about ranks that died without a word: "rank 1 (process 4242 on node7) died: it was
/// in
/// ...", or "" when none did. Looks only at processes of this machine.
std::string describe_dead_ranks(const std::filesystem::path& journals, int ranks);

}  // namespace conclave
