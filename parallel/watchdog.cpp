#include "parallel/watchdog.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <tuple>

#include "framework/base/error.h"

namespace conclave {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* last_word = "last_word";

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f s", seconds < 10 ? 1 : 0, seconds);
  return text;
}

/// "rank 3", "ranks 0-2 and 5"
std::string ranks_text(const std::vector<int>& ranks) {
  std::vector<std::string> runs;
  for (std::size_t i = 0, end; i < ranks.size(); i = end) {
    for (end = i + 1; end < ranks.size() && ranks[end] == ranks[end - 1] + 1;) ++end;
    runs.push_back(end - i == 1   ? join_text(ranks[i])
                   : end - i == 2 ? join_text(ranks[i], ", ", ranks[i + 1])
                                  : join_text(ranks[i], "-", ranks[end - 1]));
  }
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < runs.size(); ++i)
    text += (i == 0 ? "" : i + 1 == runs.size() ? " and " : ", ") + runs[i];
  return text;
}

/// "all_reduce 17 of world (gradients)"
std::string call_text(const JournalEntry& entry) {
  return join_text(entry.operation.data(), " ", entry.sequence, " of ", entry.name.data(), " (",
                   entry.purpose.data(), ")");
}

std::string place_text(const RankRecord& record) {
  std::string text = name_of(record.activity);
  if (record.step > 0) text += join_text(" of step ", record.step);
  return text;
}

std::string last_text(const RankRecord& record) {
  const JournalEntry* last = record.last();
  return last == nullptr ? "it has entered no collective yet" : "its last collective was " + call_text(*last);
}

/// Where a rank is that others wait for.
std::string where_text(const RankView& view, int rank) {
  const RankRecord& record = view.record;
  if (!view.written) return join_text("rank ", rank, " has left the run");
  if (!view.responding)
    return join_text("rank ", rank, " (process ", record.process, " on ", record.host,
                     ") is not responding: stopped or dead; it was in ", place_text(record), ", ",
                     last_text(record));
  if (const JournalEntry* entry = record.waits_in())
    return join_text("rank ", rank, " waits in ", call_text(*entry), " since ",
                     seconds_text(record.quiet_seconds), ", in ", place_text(record));
  return join_text("rank ", rank, " (process ", record.process, " on ", record.host,
                   ") is outside any collective since ", seconds_text(record.quiet_seconds), ", in ",
                   place_text(record), ", ", last_text(record));
}

bool same_call(const JournalEntry& a, const JournalEntry& b) {
  return a.communicator == b.communicator && a.sequence == b.sequence && a.operation == b.operation &&
         a.purpose == b.purpose;
}

/// True where a rank has entered this very collective. Its ring may have moved on: then a later one counts.
bool has_entered(const RankView& view, const JournalEntry& call) {
  if (!view.written) return false;
  const std::int64_t known = std::min<std::int64_t>(view.record.entered, journal_entries);
  for (std::int64_t i = 0; i < known; ++i) {
    const JournalEntry& entry = view.record.ring[static_cast<std::size_t>(i)];
    if (entry.communicator != call.communicator) continue;
    if (entry.sequence == call.sequence) return same_call(entry, call);
    if (known == journal_entries && entry.sequence > call.sequence) return true;
  }
  return false;
}

struct Stall {
  JournalEntry call;
  std::vector<int> waiting;  // in it
  std::vector<int>
      begun;  // have entered it and are elsewhere now, as one may with a request, or stopped in it
  std::vector<int> missing;
  /// How sure it is that this is where the trouble began: 2 where somebody missing waits for nobody, 1 where
  /// somebody who has begun it does.
  int weight = 0;
};

std::vector<Stall> find_stalls(const std::vector<RankView>& views) {
  std::vector<Stall> stalls;
  for (const RankView& view : views) {
    const JournalEntry* call = view.written ? view.record.waits_in() : nullptr;
    if (call == nullptr || std::any_of(stalls.begin(), stalls.end(),
                                       [&](const Stall& stall) { return same_call(stall.call, *call); }))
      continue;
    Stall stall;
    stall.call = *call;
    for (std::size_t rank = 0; rank < views.size(); ++rank) {
      const RankView& other = views[rank];
      const JournalEntry* waits = other.written && other.responding ? other.record.waits_in() : nullptr;
      const auto number = static_cast<int>(rank);
      if (waits != nullptr && same_call(*waits, *call)) {
        stall.waiting.push_back(number);
      } else if (has_entered(other, *call)) {
        stall.begun.push_back(number);
        if (waits == nullptr) stall.weight = std::max(stall.weight, 1);
      } else if (call->members.contain(number)) {
        stall.missing.push_back(number);
        if (waits == nullptr) stall.weight = 2;
      }
    }
    stalls.push_back(std::move(stall));
  }
  return stalls;
}

std::vector<RankView> read_all(const std::filesystem::path& journals, int ranks) {
  std::vector<RankView> views(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    const std::optional<RankRecord> record = read_journal(journals, rank);
    if (!record) continue;
    views[static_cast<std::size_t>(rank)].record = *record;
    views[static_cast<std::size_t>(rank)].written = true;
  }
  return views;
}

std::string time_text(std::int64_t nanoseconds) {
  const std::time_t seconds = nanoseconds / 1'000'000'000;
  std::tm parts{};
  char day[32], text[48];
  std::strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &parts));
  std::snprintf(text, sizeof text, "%s.%03d", day, static_cast<int>(nanoseconds / 1'000'000 % 1000));
  return text;
}

}  // namespace

std::string describe_stall(const std::vector<RankView>& ranks) {
  const std::vector<Stall> stalls = find_stalls(ranks);
  const auto chosen = std::max_element(stalls.begin(), stalls.end(),
                                       [](const Stall& a, const Stall& b) { return a.weight < b.weight; });
  std::string text;
  std::vector<int> to_place;
  if (chosen == stalls.end()) {
    text = "no rank waits in a collective";
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) to_place.push_back(static_cast<int>(rank));
  } else {
    const JournalEntry& call = chosen->call;
    text = join_text(call.operation.data(), " number ", call.sequence, " of communicator ", call.name.data(),
                     ", for ", call.purpose.data(), ", is not complete");
    const char* joint = ": ";
    for (const auto& [group, one, several] :
         {std::tuple{&chosen->waiting, " is in it", " are in it"},
          {&chosen->begun, " has begun it and is elsewhere", " have begun it and are elsewhere"},
          {&chosen->missing, " is not", " are not"}}) {
      if (group->empty()) continue;
      text += join_text(joint, ranks_text(*group), group->size() == 1 ? one : several);
      joint = ", ";
    }
    to_place = chosen->missing;
    to_place.insert(to_place.end(), chosen->begun.begin(), chosen->begun.end());
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {  // whoever is stopped matters most
      const int number = static_cast<int>(rank);
      if (ranks[rank].written && !ranks[rank].responding &&
          std::find(to_place.begin(), to_place.end(), number) == to_place.end())
        to_place.insert(to_place.begin(), number);
    }
  }
  constexpr std::size_t most = 8;
  for (std::size_t i = 0; i < std::min(to_place.size(), most); ++i)
    text += "; " + where_text(ranks[static_cast<std::size_t>(to_place[i])], to_place[i]);
  if (to_place.size() > most) text += join_text("; and ", to_place.size() - most, " more");
  return text;
}

std::string collectives_text(const std::vector<RankView>& ranks) {
  std::string text;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const RankRecord& record = ranks[rank].record;
    if (!ranks[rank].written) {
      text += join_text("rank ", rank, ": has left the run\n\n");
      continue;
    }
    const std::int64_t first = std::max<std::int64_t>(record.entered - journal_entries, 0);
    const bool gone = ranks[rank].gone;
    text += join_text("rank ", rank, ", process ", record.process, " on ", record.host, ", ",
                      !gone            ? "in "
                      : record.leaving ? "ended in "
                                       : "died in ",
                      place_text(record), gone || ranks[rank].responding ? "" : ", not responding",
                      ", quiet for ", seconds_text(record.quiet_seconds), "; its last ",
                      record.entered - first, " collectives, the newest last:\n");
    for (std::int64_t number = first; number < record.entered; ++number) {
      const JournalEntry& entry = record.ring[static_cast<std::size_t>(number % journal_entries)];
      const double seconds = static_cast<double>(entry.left - entry.entered) * 1e-9;
      char duration[32];
      std::snprintf(duration, sizeof duration, "%.6f s", seconds);
      text += join_text("  ", time_text(entry.entered), "  ", call_text(entry), ", ", entry.bytes, " bytes, ",
                        entry.left > 0             ? duration
                        : number == record.waiting ? "waits in it"
                                                   : "under way",
                        "\n");
    }
    text += "\n";
  }
  return text;
}

bool claim_last_word(const std::filesystem::path& journals) {
  const int file = ::open((journals / last_word).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return false;
  ::close(file);
  return true;
}

bool last_word_was_spoken(const std::filesystem::path& journals) {
  std::error_code ignored;
  return std::filesystem::exists(journals / last_word, ignored);
}

std::string describe_dead_ranks(const std::filesystem::path& journals, int ranks) {
  std::string text;
  for (const RankView& view : read_all(journals, ranks)) {
    const RankRecord& record = view.record;
    if (!view.written || record.leaving || !process_is_gone(record)) continue;
    const JournalEntry* waiting = record.waits_in();
    text += join_text(text.empty() ? "" : "; ", "rank ", record.rank, " (process ", record.process, " on ",
                      record.host, ") died in ", place_text(record), ", ",
                      waiting != nullptr ? "waiting in " + call_text(*waiting) : last_text(record));
  }
  return text;
}

Watchdog::Watchdog(Journal& journal, WatchdogOptions options)
    : journal_(journal), options_(std::move(options)), thread_([this] { run(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Watchdog::run() {
  JournalPage& page = journal_.page();
  std::int64_t events = page.events;
  double quiet = 0;
  Clock::time_point last = Clock::now();
  std::unique_lock lock(mutex_);
  while (!ended_) {
    changed_.wait_for(lock, std::chrono::duration<double>(tick()));
    const Clock::time_point now = Clock::now();
    // A longer pause than two ticks was one of this thread too.
    quiet += std::min(seconds_between(last, now), 2 * tick());
    last = now;
    if (page.events != events) {
      events = page.events;
      quiet = 0;
    }
    page.quiet_milliseconds = static_cast<std::int64_t>(quiet * 1000);
    page.heartbeat.fetch_add(1);
    lock.unlock();
    // Not while the rank is busy: its stores would wait for the page to be written.
    if (quiet > options_.seconds / 2) journal_.publish();
    if (quiet > options_.seconds) {
      alarm(events);
      quiet = 0;  // it went on after all
      last = Clock::now();
    }
    lock.lock();
  }
}

void Watchdog::beat() {
  journal_.page().heartbeat.fetch_add(1);
  journal_.publish();
}

bool Watchdog::still_quiet_after(double seconds, std::int64_t events) {
  const Clock::time_point begin = Clock::now();
  while (seconds_between(begin, Clock::now()) < seconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    beat();  // other ranks look at it now
    if (journal_.page().events != events) return false;
  }
  return true;
}

void Watchdog::alarm(std::int64_t events) {
  const JournalPage& page = journal_.page();
  const std::filesystem::path& journals = journal_.directory();
  bool speaks = claim_last_word(journals);
  for (int attempt = 0; !speaks && attempt < 40; ++attempt) {
    // Another rank speaks and ends the job, or finds that it can go on.
    if (!still_quiet_after(0.2, events)) return;
    speaks = claim_last_word(journals);
  }
  if (speaks) {
    // More than a tick, and patience with a busy machine.
    const double observation = 1 + 1.5 * tick();
    const std::vector<RankView> before = read_all(journals, page.ranks);
    if (!still_quiet_after(observation, events)) {
      std::error_code error;
      std::filesystem::remove(journals / last_word, error);
      return;
    }
    std::vector<RankView> views = read_all(journals, page.ranks);
    for (std::size_t rank = 0; rank < views.size(); ++rank)
      views[rank].responding = views[rank].record.heartbeat != before[rank].record.heartbeat;
    const std::string sentence = describe_stall(views);
    std::ofstream(options_.report) << sentence << "\n\n" << collectives_text(views);
    options_.say(join_text("watchdog: no progress for ", seconds_text(options_.seconds), ": ", sentence,
                           ". The last ", journal_entries, " collectives of every rank are in ",
                           options_.report.string(), "."));
  }
  journal_.mark_leaving();
  options_.end();
}

}  // namespace conclave
