#include "launch/train/run_guard.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/telemetry/terminal.h"
#include "framework/telemetry/terminal_writer.h"
#include "launch/train/stop_signals.h"
#include "parallel/communicator.h"
#include "parallel/device_collectives.h"

namespace conclave {
namespace {

constexpr int machine_failed = static_cast<int>(Fault::machine);

/// The run's directory may have been removed and begun anew by another run, which keeps journals there too.
bool is_in_place(Journal& own) {
  const std::optional<RankRecord> there = read_journal(own.directory(), own.page().rank);
  return there && there->process == own.page().process && there->host == own.page().host.data();
}

}  // namespace

std::filesystem::path RunGuard::journals_of(const Recipe& recipe) {
  return std::filesystem::path(recipe.output) / "ranks";
}

RunGuard::RunGuard(Communicator& world, const Recipe& recipe)
    : world_(world),
      output_(recipe.output),
      journal_(std::make_shared<Journal>(journals_of(recipe), world.rank(), world.size())) {
  world_.keep_journal(journal_);
  if (recipe.training.watchdog_seconds > 0)
    watchdog_ = std::make_unique<Watchdog>(
        *journal_, WatchdogOptions{.seconds = recipe.training.watchdog_seconds,
                                   .report = output_ / "watchdog.txt",
                                   .say = [this](const std::string& sentence) { say(sentence); },
                                   .end =
                                       [] {
                                         abort_device_collectives();
                                         ::_exit(machine_failed);
                                       }});
  set_signal_actions(
      {.terminated = [this] { look_for_dead_ranks(); }, .leaving = [this] { journal_->mark_leaving(); }});
}

RunGuard::~RunGuard() {
  set_signal_actions({});
  watchdog_.reset();
  world_.keep_journal(nullptr);
}

bool RunGuard::claims_last_word() const {
  return claim_last_word(journal_->directory());
}

/// To the log, unless another run has the directory now, and to the terminal, from any thread: one write
/// each. The job ends then, also where the terminal is stopped.
void RunGuard::say(const std::string& sentence) const {
  const std::string line = join_text("conclave: [rank ", world_.rank(), "] ", printable(sentence), "\n");
  constexpr int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const int file = is_in_place(*journal_) ? ::open((output_ / "log.txt").c_str(), flags, 0666) : -1;
  if (file >= 0) {
    write_all(file, line);
    ::close(file);
  }
  write_within(2, STDERR_FILENO, line);
}

/// mpirun has waited for the dead one before it ends the others with SIGTERM, and kills them a second later.
/// A SIGTERM from a user finds nobody dead.
void RunGuard::look_for_dead_ranks() const {
  std::string dead;
  for (int attempt = 0; attempt < 3 && dead.empty(); ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    dead = describe_dead_ranks(journal_->directory(), world_.size());
  }
  if (dead.empty()) return;
  journal_->mark_leaving();
  if (claim_last_word(journal_->directory())) say(dead + "; the job ends.");
  ::_exit(machine_failed);
}

}  // namespace conclave
