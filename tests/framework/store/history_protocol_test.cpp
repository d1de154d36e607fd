// How experts.h5 reaches the disk: few bytes however long the run is; a run that is killed between any two
// system calls leaves it readable; a disk that refuses any of them does not end the run and loses nothing.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "framework/store/expert_history.h"
#include "framework/store/expert_history_writer.h"
#include "tests/framework/store/history_steps.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/framework/store/system_calls.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

/// The bytes that a run of so many steps writes, with a flush for every checkpoint.
std::size_t bytes_written(std::int64_t steps) {
  const ScratchDirectory scratch;
  std::size_t bytes = 0;
  ExpertHistoryWriter writer(scratch.path() / "experts.h5",
                             {.layers = 4, .experts = 32, .domains = {}, .flush_interval = 50});
  watch_system_calls(scratch.path().string(), [&](const SystemCall& call) {
    bytes += call.bytes;
    return Verdict{};
  });
  for (std::int64_t step = 1; step <= steps; ++step) {
    writer.add_step(step, std::vector<std::int64_t>(128, step), std::vector<double>(128, 0.5),
                    std::vector<double>(4, 1.0));
    if (step % 100 == 0) writer.flush();
  }
  watch_system_calls("", {});
  return bytes;
}

TEST(HistoryProtocol, BytesGrowWithTheStepsAndNotWithTheirSquare) {
  constexpr std::size_t row = 2 * 128 * 8 + 3 * 4 * 8 + 8;
  const std::size_t few = bytes_written(50), some = bytes_written(200), many = bytes_written(2000);
  std::printf("bytes written: %zu in 50 steps, %zu in 200, %zu in 2000, whose rows have %zu\n", few, some,
              many, 2000 * row);
  // Copied whole for every 50 steps, 2000 steps would be 820 times 50, and each row written 20 times.
  EXPECT_LT(many, 3 * 40 * few);
  EXPECT_LT(many, 3 * 10 * some);
  EXPECT_LT(many, 4 * 2000 * row);
}

/// A run of 48 steps whose segments have four; the last one of them completes ten and is merged.
void prepare(const fs::path& path) {
  ExpertHistoryWriter writer(path, options());
  log_steps(writer, 1, 36, 0);
}
void go_on(const fs::path& path, const std::function<void(const std::string&)>& warn = {}) {
  auto resumed = options(36);
  resumed.warn = warn;
  ExpertHistoryWriter writer(path, resumed);
  log_steps(writer, 37, 48, 0);
}

std::size_t calls_of(const fs::path& path) {
  std::size_t calls = 0;
  watch_system_calls(path.parent_path().string(), [&](const SystemCall&) {
    ++calls;
    return Verdict{};
  });
  go_on(path);
  watch_system_calls("", {});
  return calls;
}

void expect_rows(const ExpertHistory& history, std::size_t least, std::size_t most) {
  ASSERT_GE(history.step.size(), least);
  ASSERT_LE(history.step.size(), most);
  for (std::size_t row = 0; row < history.step.size(); ++row) {
    EXPECT_EQ(history.step[row], static_cast<std::int64_t>(row + 1));
    EXPECT_EQ(history.counts[row * 6], static_cast<std::int64_t>(row + 1) * 10);
  }
}

TEST(HistoryProtocol, KilledBeforeAnySystemCallItIsReadableAndGoesOn) {
  const ScratchDirectory scratch;
  const fs::path prepared = scratch.path() / "prepared", path = scratch.path() / "run" / "experts.h5";
  prepare(prepared / "experts.h5");
  const auto fresh = [&] {
    fs::remove_all(path.parent_path());
    fs::copy(prepared, path.parent_path(), fs::copy_options::recursive);
  };
  fresh();
  const std::size_t calls = calls_of(path);
  ASSERT_GT(calls, 25u);
  std::size_t last_rows = 36;
  for (std::size_t kill = 0; kill < calls; ++kill) {
    fresh();
    const pid_t child = ::fork();
    if (child == 0) {
      std::size_t call = 0;
      watch_system_calls(path.parent_path().string(), [&](const SystemCall&) {
        if (call++ == kill) ::raise(SIGKILL);
        return Verdict{};
      });
      go_on(path);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << kill;
    const ExpertHistory history = read_expert_history(path);
    expect_rows(history, last_rows, 48);
    last_rows = history.step.size();
    go_on(path);
    expect_rows(read_expert_history(path), 48, 48);
  }
  EXPECT_EQ(last_rows, 48u) << "the last calls come after the last rename";
}

TEST(HistoryProtocol, ADiskThatRefusesAnySystemCallForAWhileCostsNothing) {
  const ScratchDirectory scratch;
  const fs::path prepared = scratch.path() / "prepared", path = scratch.path() / "run" / "experts.h5";
  prepare(prepared / "experts.h5");
  const auto fresh = [&] {
    fs::remove_all(path.parent_path());
    fs::copy(prepared, path.parent_path(), fs::copy_options::recursive);
  };
  fresh();
  const std::size_t calls = calls_of(path);
  for (std::size_t refused = 0; refused < calls; ++refused) {
    fresh();
    std::size_t call = 0;
    std::vector<std::string> warnings;
    watch_system_calls(path.parent_path().string(),
                       [&](const SystemCall&) { return Verdict{.error = call++ == refused ? ENOSPC : 0}; });
    ASSERT_NO_THROW(go_on(path, [&](const std::string& sentence) { warnings.push_back(sentence); }))
        << refused;
    watch_system_calls("", {});
    ASSERT_EQ(warnings.size(), 2u) << refused;
    expect_words(warnings[0], {"No space left on device", "Training goes on"});
    expect_words(warnings[1], {"written again", "no row is missing"});
    expect_rows(read_expert_history(path), 48, 48);
  }
}

TEST(HistoryProtocol, AFullDiskIsSaidOnceAndRowsWaitWithinABound) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  std::vector<std::string> warnings;
  auto bounded = options(-1, 4);
  bounded.most_waiting_bytes =
      40 * (1 + 6 + 6 + 2) * 8 + 8 * (1 + 12 + 4 + 4) * 8;  // 40 steps, 8 evaluations
  bounded.warn = [&](const std::string& sentence) { warnings.push_back(sentence); };
  {
    ExpertHistoryWriter writer(path, bounded);
    log_steps(writer, 1, 10, 0);
    writer.flush();
    watch_system_calls(scratch.path().string(), [&](const SystemCall&) { return Verdict{.error = ENOSPC}; });
    log_steps(writer, 11, 100, 0);
    writer.flush();
    EXPECT_EQ(warnings.size(), 1u);
    expect_rows(read_expert_history(path), 10, 10);
    watch_system_calls("", {});
    log_steps(writer, 101, 104, 0);
    writer.flush();
    ASSERT_EQ(warnings.size(), 2u);
    expect_words(warnings[1], {"written again", "of its steps 11 to ", "are missing"});
    const ExpertHistory history = read_expert_history(path);
    EXPECT_GE(history.step.size(), 10u + 35);
    EXPECT_LE(history.step.size(), 10u + 45);
    EXPECT_EQ(history.step.back(), 104);
    EXPECT_EQ(history.step[history.step.size() - 30], 75);
    EXPECT_EQ(history.counts.back() % 1000000, 104 * 10 + 5);
    watch_system_calls(scratch.path().string(), [&](const SystemCall&) { return Verdict{.error = ENOSPC}; });
    log_steps(writer, 105, 106, 0);
  }
  watch_system_calls("", {});
  ASSERT_EQ(warnings.size(), 4u);
  expect_words(warnings[3], {"steps 105 to 106 are not in it"});
  EXPECT_EQ(read_expert_history(path).step.back(), 104);
  for (const auto& entry : fs::directory_iterator(segments_directory(path)))
    EXPECT_NE(entry.path().extension(), ".partial");
}

}  // namespace
}  // namespace conclave
