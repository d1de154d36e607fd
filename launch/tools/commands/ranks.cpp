#include "launch/tools/commands/ranks.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "launch/tools/commands/command_line.h"
#include "parallel/watchdog.h"

namespace conclave {
namespace {

/// Nothing where the rank has entered none.
std::optional<double> seconds_since_last_collective(const RankRecord& record) {
  const JournalEntry* last = record.last();
  if (last == nullptr) return std::nullopt;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::chrono::nanoseconds then(std::max(last->entered, last->left));
  return std::max(0.0, std::chrono::duration<double>(now - then).count());
}

}  // namespace

int run_ranks(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "ranks",
       .positionals = "RUN",
       .summary = "Says where each rank of a training run is, or was when it died.",
       .options = {{"dead", "", "only names ranks that died without a word, in one line"}},
       .more = "RUN is the run's directory. While a run lives, every rank keeps a journal in RUN/ranks: the "
               "part\n"
               "of the step that it is in, and its last 64 collectives with their times. A run that ends in "
               "order\n"
               "removes it. Whether a process still lives can be seen on its own machine only.\n\n"
               "Example:\n"
               "  conclave ranks runs/quickstart"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  const std::filesystem::path run = options.only_positional("run directory");
  check(std::filesystem::is_directory(run), Fault::request, "ranks: ", run.string(),
        " is no directory; expected that of a run");
  const std::filesystem::path journals = run / "ranks";
  const int ranks = ranks_in_journals(journals);
  if (options.has("dead")) {
    const std::string dead = last_word_was_spoken(journals) ? "" : describe_dead_ranks(journals, ranks);
    if (!dead.empty()) std::cout << printable(dead) << "\n";
    return 0;
  }
  if (ranks == 0) {
    std::cout << "No rank has a journal in " << printable(journals.string())
              << ": nothing runs there, and the last run has ended in order.\n";
    return 0;
  }
  std::vector<RankView> views;
  for (int rank = 0; rank < ranks; ++rank) {
    std::optional<RankRecord> record = read_journal(journals, rank);
    const bool gone = record && process_is_gone(*record);
    // The watchdog of a rank that is gone measures nothing any more.
    if (gone) record->quiet_seconds = seconds_since_last_collective(*record).value_or(record->quiet_seconds);
    views.push_back({record.value_or(RankRecord{}), record.has_value(), record && !gone, gone});
  }
  std::cout << printable(collectives_text(views));
  return 0;
}

}  // namespace conclave
