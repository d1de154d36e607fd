// Every way for a run to end, through real processes: stalls are named by the watchdog, a killed rank by a
// survivor, numbers that go wrong lead past their data or to exit code 4, a time limit and signals to 75.
#include <signal.h>

#include <chrono>
#include <fstream>
#include <future>
#include <regex>
#include <thread>

#include "framework/store/checkpoint_file.h"
#include "parallel/journal.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// How many of the last collectives the watchdog's report lists for each rank.
std::vector<std::size_t> reported(const std::filesystem::path& report) {
  std::vector<std::size_t> counts;
  std::ifstream file(report);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("rank ") && line.find("collectives, the newest last:") != std::string::npos)
      counts.push_back(0);
    if (line.starts_with("  20") && !counts.empty()) ++counts.back();
  }
  return counts;
}

class Reliability : public Command {
 protected:
  static constexpr const char* endless =
      "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0 training.watchdog_seconds=2 ";

  static std::future<Outcome> start(const std::string& output, const std::string& overrides, int ranks) {
    return std::async(std::launch::async, [=] { return train(output, overrides, ranks); });
  }
  /// The process of a rank, once it has done some steps.
  static pid_t process_of(const std::string& output, int rank) {
    for (int attempt = 0; attempt < 600; ++attempt) {
      const auto record = read_journal(folder_ / output / "ranks", rank);
      if (record && record->step > 40) return static_cast<pid_t>(record->process);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return 0;
  }
  static Outcome faulty(const std::string& fault, const std::string& seconds, const std::string& output) {
    std::filesystem::create_directories(folder_ / output);
    return run("export ASAN_OPTIONS=detect_leaks=0; OMP_NUM_THREADS=1 timeout 60 " +
               std::string(CONCLAVE_MPIRUN) +
               " --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n 2 " +
               CONCLAVE_FAULTY_RUN + " " + fault + " " + seconds + " " + path(output));
  }
  static void expect_one_alarm(const Outcome& outcome, const std::string& pattern) {
    EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
    EXPECT_TRUE(std::regex_search(outcome.output, std::regex(pattern))) << outcome.output;
  }
};

TEST_F(Reliability, AStoppedRankIsNamed) {
  std::future<Outcome> job = start("stopped", endless, 2);
  const pid_t process = process_of("stopped", 1);
  ASSERT_GT(process, 0);
  const auto begin = Clock::now();
  ASSERT_EQ(::kill(process, SIGSTOP), 0);
  const Outcome outcome = job.get();
  EXPECT_LT(seconds_since(begin), 2 + 10);
  expect_one_alarm(outcome,
                   "watchdog: no progress for 2.0 s: [a-z_]+ number [0-9]+ of communicator [a-z_]+, for "
                   "[a-z]+, is not complete: rank 0 is in it, rank 1 (is not|has begun it and is elsewhere); "
                   "rank 1 \\(process " +
                       std::to_string(process) +
                       " on [^ ]+\\) is not responding: stopped or dead; it was in "
                       "[a-z]+ of step [0-9]+, its last collective was ");
  EXPECT_EQ(reported(folder_ / "stopped/watchdog.txt"), (std::vector<std::size_t>{64, 64}));
  EXPECT_NE(content(folder_ / "stopped/log.txt").find("watchdog: no progress"), std::string::npos);
  RankRecord record = read_journal(folder_ / "stopped/ranks", 1).value_or(RankRecord{});
  for (int attempt = 0; attempt < 60 && !process_is_gone(record); ++attempt)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(process_is_gone(record)) << "the stopped rank was left behind";
}

TEST_F(Reliability, ACollectiveThatIsSkippedOrAnotherOneIsNamed) {
  std::future<Outcome> other = std::async(std::launch::async, [] { return faulty("other", "1", "other"); });
  // Behind the barrier that it left out, rank 1 enters the step's first all-reduce, on another communicator.
  expect_one_alarm(
      faulty("skip", "1", "skip"),
      "(barrier number [0-9]+ of communicator world, for agreement, is not complete: rank 0 is in it, "
      "rank 1 is not; rank 1 waits in all_reduce [0-9]+ of data)|"
      "(all_reduce number [0-9]+ of communicator data, for statistics, is not complete: rank 1 is in it, "
      "rank 0 is not; rank 0 waits in barrier [0-9]+ of world)");
  EXPECT_EQ(reported(folder_ / "skip/watchdog.txt").size(), 2u);
  expect_one_alarm(other.get(), "number [0-9]+ of communicator [a-z]+, for [a-z]+, is not complete");
}

TEST_F(Reliability, ACollectiveBetweenDevicesThatIsSkippedIsNamed) {
  expect_one_alarm(
      faulty("device", "1", "device"),
      "(all_reduce number [0-9]+ of communicator world, for gradients, is not complete: rank 0 is in it, "
      "rank 1 is not; rank 1 waits in all_reduce [0-9]+ of data)|"
      "(all_reduce number [0-9]+ of communicator data, for statistics, is not complete: rank 1 is in it, "
      "rank 0 is not; rank 0 waits in all_reduce [0-9]+ of world)");
}

TEST_F(Reliability, ARankInAnEndlessLoopIsNamed) {
  const auto begin = Clock::now();
  expect_one_alarm(
      faulty("endless", "1", "endless"),
      "all_reduce number [0-9]+ of communicator data, for statistics, is not complete: rank 0 is in it, "
      "rank 1 is not; rank 1 \\(process [0-9]+ on [^ ]+\\) is outside any collective since [0-9.]+ s, in "
      "data of step 4");
  EXPECT_LT(seconds_since(begin), 2 + 10);
  EXPECT_EQ(reported(folder_ / "endless/watchdog.txt").size(), 2u);
}

TEST_F(Reliability, ASlowRankIsNoAlarm) {
  const Outcome outcome = faulty("slow", "2", "slow");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "slow/ranks"));
}

TEST_F(Reliability, AThousandCleanStepsRaiseNoAlarm) {
  const Outcome outcome = train("clean",
                                "training.steps=1000 training.watchdog_seconds=2 checkpoint.interval=200 "
                                "checkpoint.keep=1 evaluation.interval=200 evaluation.batches=0 "
                                "training.replica_check_interval=50",
                                2);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output.find("watchdog"), std::string::npos) << outcome.output;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "clean/ranks"));
}

TEST_F(Reliability, AKilledRankIsNamedByASurvivor) {
  for (const int victim : {0, 1}) {
    const std::string output = "killed" + std::to_string(victim);
    std::future<Outcome> job = start(output, endless, 2);
    const pid_t process = process_of(output, victim);
    ASSERT_GT(process, 0);
    const auto begin = Clock::now();
    ASSERT_EQ(::kill(process, SIGKILL), 0);
    const Outcome outcome = job.get();
    EXPECT_LT(seconds_since(begin), 10);
    EXPECT_EQ(outcome.exit_code, 128 + SIGKILL) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
    EXPECT_TRUE(std::regex_search(
        outcome.output,
        std::regex("rank " + std::to_string(victim) + " \\(process " + std::to_string(process) +
                   " on [^ ]+\\) died in [a-z]+ of step [0-9]+, (waiting in|its last collective was) ")))
        << outcome.output;
  }
}

TEST_F(Reliability, RanksThatAreGoneAreSaidToHaveDied) {
  std::future<Outcome> job = start("gone", endless, 2);
  const pid_t first = process_of("gone", 0), second = process_of("gone", 1);
  ASSERT_GT(first, 0);
  ASSERT_GT(second, 0);
  for (const pid_t process : {first, second}) ASSERT_EQ(::kill(process, SIGKILL), 0);
  job.get();
  std::this_thread::sleep_for(std::chrono::seconds(2));
  const Outcome outcome = conclave_command("ranks " + path("gone"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  for (const pid_t process : {first, second}) {
    std::smatch found;
    ASSERT_TRUE(
        std::regex_search(outcome.output, found,
                          std::regex("process " + std::to_string(process) +
                                     " on [^ ]+, died in [a-z]+ of step [0-9]+, quiet for ([0-9.]+) s")))
        << outcome.output;
    EXPECT_GE(std::stod(found[1]), 2.0) << outcome.output;
  }
  EXPECT_EQ(outcome.output.find("not responding"), std::string::npos) << outcome.output;
}

TEST_F(Reliability, AnErrorOfOneRankIsNoDeath) {
  // Every rank but the failing one is ended with SIGTERM: none of them may call the failing one dead.
  const Outcome outcome = train("refused", "data.train.0.path=" + path("missing"), 2);
  EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
  EXPECT_EQ(outcome.output.find("died"), std::string::npos) << outcome.output;
}

TEST_F(Reliability, TheTimeLimitSavesAndExitsWith75) {
  const Outcome outcome = train(
      "limited",
      "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0 training.time_limit=00:03", 2);
  EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
  EXPECT_NE(outcome.output.find("Stopped before training.time_limit after step"), std::string::npos)
      << outcome.output;
  std::smatch found;
  ASSERT_TRUE(std::regex_search(outcome.output, found, std::regex("\\[ +([0-9.]+) s\\] Stopped before")));
  EXPECT_LT(std::stod(found[1]), 3.0);
  EXPECT_GT(std::stod(found[1]), 1.0);
  const Outcome resumed = train("limited", "training.steps=1000000 training.time_limit=1", 2);
  EXPECT_EQ(resumed.exit_code, 75) << resumed.output;
  EXPECT_NE(resumed.output.find("Resuming after step"), std::string::npos) << resumed.output;
}

TEST_F(Reliability, ASecondSignalLeavesAtOnce) {
  std::future<Outcome> job = std::async(std::launch::async, [] {
    return train("hurried", std::string(endless) +
                                "model.hidden_size=256 model.moe.moe_intermediate_size=2048 "
                                "training.global_batch_size=128 training.watchdog_seconds=60");
  });
  pid_t process = 0;
  for (int attempt = 0; attempt < 400 && process == 0; ++attempt) {
    const auto record = read_journal(folder_ / "hurried/ranks", 0);
    if (record && record->activity == Activity::forward) process = static_cast<pid_t>(record->process);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSERT_GT(process, 0);
  ::kill(process, SIGUSR1);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(process, SIGTERM);
  const Outcome outcome = job.get();
  EXPECT_EQ(outcome.exit_code, 128 + SIGTERM) << outcome.output;
  const Outcome again = train("hurried", "training.steps=2");
  EXPECT_EQ(again.exit_code, 0) << again.output;
}

TEST_F(Reliability, NumbersThatStayWrongGoBackTwiceAndEndWithFour) {
  for (const int ranks : {1, 2}) {
    // The first update makes the weights huge, and it is saved: going back cannot help.
    const std::string output = "wrong" + std::to_string(ranks);
    const Outcome outcome =
        train(output,
              "optimizer.lr=1e30 optimizer.grad_clip=0 optimizer.schedule.warmup_steps=0 "
              "checkpoint.interval=1 evaluation.interval=0 training.steps=40 training.skip_limit=2",
              ranks);
    EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "Going back to the parameters of step 1 "), 2u) << outcome.output;
    EXPECT_NE(outcome.output.find("on with the data after step 3; time 1 of 2"), std::string::npos)
        << outcome.output;
    EXPECT_NE(outcome.output.find("training cannot go on"), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("in micro-batch 0 is the first that is not finite"), std::string::npos)
        << outcome.output;
    std::vector<std::int64_t> skipped;
    for (const Json& line : metrics(output))
      if (line.contains("skipped") && line["skipped"] == true) skipped.push_back(line["step"]);
    EXPECT_EQ(skipped, (std::vector<std::int64_t>{2, 3, 4, 5, 6, 7}));
    const std::string log = content(folder_ / output / "log.txt");
    EXPECT_TRUE(std::regex_search(
        log,
        std::regex(
            "Data of step 2: (numbers|letters) \\([^)]*\\), sequences [0-9]+ \\(documents [0-9]+-[0-9]+\\)")))
        << log;
  }
}

TEST_F(Reliability, ASecondRunIsToldWhoHoldsTheDirectory) {
  std::future<Outcome> job = start("held", endless, 1);
  const pid_t process = process_of("held", 0);
  ASSERT_GT(process, 0);
  const Outcome refused = train("held", "");
  ::kill(process, SIGTERM);
  job.get();
  EXPECT_EQ(refused.exit_code, 2) << refused.output;
  EXPECT_TRUE(std::regex_search(
      refused.output,
      std::regex("another run writes into " + path("held") + " \\([^ ]+, process " + std::to_string(process) +
                 ", since [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\\)")))
      << refused.output;
}

}  // namespace
}  // namespace conclave
