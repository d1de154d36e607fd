// Honest ends under everyday accidents: a directory that another run takes over, an output that is the
// recipe's own place, pipes and terminals that go or pause, signals, evaluations that last too long.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <future>
#include <regex>
#include <thread>

#include "framework/store/checkpoint_directory.h"
#include "parallel/journal.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string content(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Endings : public Command {
 protected:
  static constexpr const char* endless =
      "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0 ";

  static bool has(const Outcome& outcome, const std::string& part) {
    return outcome.output.find(part) != std::string::npos;
  }
  static std::future<Outcome> start(const std::string& output, const std::string& overrides, int ranks = 1) {
    return std::async(std::launch::async, [=] { return train(output, overrides, ranks); });
  }
  /// Waits until rank 0 of a run is where it is wanted; its process, or 0 when that does not come.
  template <class Condition>
  static pid_t wait_until(const std::string& output, const Condition& condition) {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      const auto record = read_journal(folder_ / output / "ranks", 0);
      if (record && condition(*record)) return static_cast<pid_t>(record->process);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return 0;
  }
  static pid_t wait_for_step(const std::string& output, std::int64_t step) {
    return wait_until(output, [step](const RankRecord& record) { return record.step >= step; });
  }
  /// The run's clock at the line that begins with these words; a NaN, which no comparison takes, without one.
  static double seconds_at(const Outcome& outcome, const std::string& words) {
    std::smatch found;
    return std::regex_search(outcome.output, found, std::regex("\\[ +([0-9.]+) s\\] " + words))
               ? std::stod(found[1])
               : std::nan("");
  }
  static bool saved_something(const std::string& output) {
    return !list_checkpoints(folder_ / output / "checkpoints").empty();
  }
  /// A shell command with `conclave train` for this output in it.
  static std::string train_command(const std::string& output, const std::string& overrides) {
    return "OMP_NUM_THREADS=1 " + std::string(CONCLAVE_COMMAND) + " train " + path("recipe.yaml") +
           " output=" + path(output) + " " + overrides;
  }
};

TEST_F(Endings, ARunWhoseDirectoryIsAnotherOnesWritesNothingThere) {
  std::future<Outcome> first = start("taken", std::string(endless) + "checkpoint.interval=7");
  const pid_t process = wait_for_step("taken", 20);
  ASSERT_GT(process, 0);
  ASSERT_EQ(::kill(process, SIGSTOP), 0);
  fs::remove_all(folder_ / "taken");
  std::future<Outcome> second = start("taken", endless);
  const pid_t other = wait_until(
      "taken", [&](const RankRecord& record) { return record.process != process && record.step > 5; });
  ASSERT_GT(other, 0);
  ASSERT_EQ(::kill(process, SIGCONT), 0);
  const Outcome ended = first.get();
  EXPECT_EQ(ended.exit_code, 5) << ended.output;
  EXPECT_EQ(occurrences(ended.output, "conclave: "), 1u) << ended.output;
  EXPECT_TRUE(has(ended, "another run has it now (")) << ended.output;
  EXPECT_TRUE(has(ended, "process " + std::to_string(other))) << ended.output;
  EXPECT_FALSE(saved_something("taken"));
  EXPECT_TRUE(fs::is_empty(folder_ / "taken/checkpoints"));
  EXPECT_GT(wait_until("taken", [&](const RankRecord& record) { return record.process == other; }), 0)
      << "the other run's journal is gone";
  ::kill(other, SIGTERM);
  const Outcome asked = second.get();
  EXPECT_EQ(asked.exit_code, 75) << asked.output;
  EXPECT_EQ(content(folder_ / "taken/log.txt").find("another run has it"), std::string::npos);
  std::int64_t before = 0;
  for (const Json& line : metrics("taken")) EXPECT_EQ(line["step"], ++before);
}

/// A recipe whose evaluation takes some seconds, and may be stopped at many places.
std::string long_evaluation(const fs::path& folder, int domains) {
  std::string list;
  for (int i = 0; i < domains; ++i)
    list += (i > 0 ? ", " : "") + ("{path: " + (folder / "numbers-validation").string()) + ", domain: d" +
            std::to_string(i) + "}";
  return "'data.validation=[" + list +
         "]' evaluation.interval=4 evaluation.batches=0 model.hidden_size=128 "
         "model.moe.moe_intermediate_size=256 checkpoint.interval=4 training.steps=6 ";
}

TEST_F(Endings, AnEvaluationIsNotWrittenIntoAnotherRunsDirectoryEither) {
  std::future<Outcome> first =
      start("evaluated-elsewhere", long_evaluation(folder_, 90) + "checkpoint.interval=0");
  const pid_t process = wait_until("evaluated-elsewhere", [](const RankRecord& record) {
    return record.activity == Activity::evaluating && record.step == 4;
  });
  ASSERT_GT(process, 0);
  ASSERT_EQ(::kill(process, SIGSTOP), 0);
  fs::remove_all(folder_ / "evaluated-elsewhere");
  std::future<Outcome> second =
      start("evaluated-elsewhere", std::string(endless) + "logging.interval=100000000");  // writes no rows
  const pid_t other = wait_until("evaluated-elsewhere", [&](const RankRecord& record) {
    return record.process != process && record.step > 5;
  });
  ASSERT_GT(other, 0);
  ASSERT_EQ(::kill(process, SIGCONT), 0);
  const Outcome ended = first.get();
  EXPECT_EQ(ended.exit_code, 5) << ended.output;
  EXPECT_TRUE(has(ended, "Validation after step 4: mean")) << ended.output;
  EXPECT_TRUE(has(ended, "another run has it now (")) << ended.output;
  EXPECT_FALSE(fs::exists(folder_ / "evaluated-elsewhere/experts.h5"));
  EXPECT_TRUE(!fs::exists(folder_ / "evaluated-elsewhere/experts") ||
              fs::is_empty(folder_ / "evaluated-elsewhere/experts"));
  ::kill(other, SIGTERM);
  EXPECT_EQ(second.get().exit_code, 75);
}

TEST_F(Endings, ADirectoryThatIsGoneEndsTheRun) {
  for (const int ranks : {1, 2}) {
    const std::string output = "gone" + std::to_string(ranks);
    std::future<Outcome> job =
        start(output, std::string(endless) + "logging.interval=1000000 checkpoint.interval=50", ranks);
    ASSERT_GT(wait_for_step(output, 5), 0);
    fs::rename(folder_ / output, folder_ / (output + "-moved"));
    const Outcome outcome = job.get();
    EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
    EXPECT_TRUE(has(outcome, "was removed or moved while this run wrote into it")) << outcome.output;
    EXPECT_FALSE(fs::exists(folder_ / output));
  }
}

TEST_F(Endings, ARecipeIsNotOverwrittenByTheRunsOwn) {
  const std::string recipe = content(folder_ / "recipe.yaml");
  fs::create_directory(folder_ / "linked");
  fs::create_symlink(folder_ / "recipe.yaml", folder_ / "linked/recipe.yaml");
  for (const std::string& arguments : {path("recipe.yaml") + " output=" + folder_.string(),
                                       path("recipe.yaml") + " output=" + path("linked"),
                                       path("linked/recipe.yaml") + " output=" + folder_.string() + "/."}) {
    const Outcome outcome = conclave_command("train " + arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_TRUE(has(outcome, "output: ") && has(outcome, "choose another output")) << outcome.output;
  }
  const Outcome inside =
      run("cd " + folder_.string() + "; " + CONCLAVE_COMMAND + " train recipe.yaml output=.");
  EXPECT_EQ(inside.exit_code, 2) << inside.output;
  EXPECT_EQ(content(folder_ / "recipe.yaml"), recipe);
  EXPECT_FALSE(fs::exists(folder_ / "checkpoints"));
  // A run goes on by the recipe that it keeps itself.
  ASSERT_EQ(train("own", "training.steps=5").exit_code, 0);
  const Outcome again = conclave_command("train " + path("own/recipe.yaml") + " training.steps=6");
  EXPECT_EQ(again.exit_code, 0) << again.output;
}

TEST_F(Endings, APipeThatIsClosedDoesNotEndTraining) {
  const Outcome outcome =
      run("bash -c '" + train_command("piped", "") + " | head -n 1; exit ${PIPESTATUS[0]}'");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_TRUE(fs::exists(folder_ / "piped/checkpoints/step-00000010"));
  EXPECT_NE(content(folder_ / "piped/log.txt").find("Done: 10 steps"), std::string::npos);
  const Outcome shown =
      run("bash -c '" + std::string(CONCLAVE_COMMAND) + " inspect " + path("piped") + " | head -n 1'");
  EXPECT_EQ(occurrences(shown.output, "\n"), 1u) << shown.output;
}

TEST_F(Endings, HangupSavesAndAnIgnoredOneStaysIgnored) {
  std::future<Outcome> hung_up = start("hung-up", endless);
  std::future<Outcome> nohup = std::async(std::launch::async, [] {
    return run("trap \"\" HUP; exec " + ("env " + train_command("nohup", endless)));
  });
  const pid_t process = wait_for_step("hung-up", 5), deaf = wait_for_step("nohup", 5);
  ASSERT_GT(process, 0);
  ASSERT_GT(deaf, 0);
  ::kill(process, SIGHUP);
  ::kill(deaf, SIGHUP);
  const Outcome outcome = hung_up.get();
  EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
  EXPECT_TRUE(saved_something("hung-up"));
  const auto record = read_journal(folder_ / "nohup/ranks", 0);
  ASSERT_TRUE(record) << "the run that ignores hangups has ended";
  EXPECT_GT(wait_for_step("nohup", record->step + 20), 0);
  ::kill(deaf, SIGTERM);
  EXPECT_EQ(nohup.get().exit_code, 75);
}

TEST_F(Endings, AnEvaluationIsBrokenOffAndComesFirstNextTime) {
  const std::string recipe = long_evaluation(folder_, 240);
  ASSERT_EQ(train("evaluated", recipe).exit_code, 0);
  const auto evaluates = [](const RankRecord& record) {
    return record.activity == Activity::evaluating && record.step == 4;
  };
  for (const int signal : {SIGTERM, SIGKILL}) {
    const std::string output = "broken" + std::to_string(signal);
    std::future<Outcome> job = start(output, recipe, signal == SIGTERM ? 2 : 1);
    const pid_t process = wait_until(output, evaluates);
    ASSERT_GT(process, 0);
    // The state of step 4 is safe before its evaluation ends.
    for (int attempt = 0; attempt < 2000 && !saved_something(output); ++attempt)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(saved_something(output));
    const auto record = read_journal(folder_ / output / "ranks", 0);
    EXPECT_TRUE(record && evaluates(*record)) << "the evaluation was too short to see";
    ASSERT_EQ(::kill(process, signal == SIGTERM ? SIGUSR1 : SIGKILL), 0);
    const Outcome outcome = job.get();
    if (signal == SIGTERM) {
      EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
      // mpiexec itself takes up to three seconds to end, so the run's own clock counts.
      EXPECT_LT(seconds_at(outcome, "Stopped on request") - seconds_at(outcome, "step 4/6"), 2)
          << outcome.output;
      EXPECT_TRUE(has(outcome, "Validation after step 4 is broken off")) << outcome.output;
    }
    for (const Json& line : metrics(output)) EXPECT_FALSE(line.contains("split")) << line;
    const Outcome resumed = train(output, recipe, signal == SIGTERM ? 2 : 1);
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    if (signal == SIGKILL) {
      EXPECT_EQ(metrics(output), metrics("evaluated"));
    }
    EXPECT_EQ(metrics(output).size(), metrics("evaluated").size());
  }
}

TEST_F(Endings, TheTimeLimitHoldsDuringTheFirstEvaluation) {
  // Validation of 800 domains with a model this wide takes two ranks on two cores more than nine times the
  // limit.
  const std::string recipe = long_evaluation(folder_, 800) +
                             "model.hidden_size=512 model.moe.moe_intermediate_size=1024 "
                             "training.time_limit=4 evaluation.interval=1";
  const Outcome outcome = train("limited", recipe);
  EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
  EXPECT_LT(seconds_at(outcome, "Stopped before training.time_limit after step 1"), 4.0) << outcome.output;
  EXPECT_TRUE(fs::exists(folder_ / "limited/checkpoints/step-00000001"));
  // The next start begins with that evaluation, and would end like this one for ever.
  const std::vector<Json> before = metrics("limited");
  const Outcome again = train("limited", recipe, 2);
  EXPECT_EQ(again.exit_code, 2) << again.output;
  EXPECT_TRUE(has(again, "training.time_limit: 4 came") && has(again, "evaluation.batches")) << again.output;
  EXPECT_FALSE(has(again, "run the same command again")) << again.output;
  EXPECT_EQ(metrics("limited"), before);
}

TEST_F(Endings, WhatAnEvaluationThatWasCutShortHasLeftIsRemoved) {
  ASSERT_EQ(train("whole", "").exit_code, 0);
  fs::copy(folder_ / "whole", folder_ / "cut", fs::copy_options::recursive);
  // As a process leaves it that is killed between the two domains' lines of step 5.
  fs::remove_all(folder_ / "cut/checkpoints/step-00000010");
  std::ofstream(folder_ / "cut/metrics.jsonl.new") << "";
  std::string kept;
  std::istringstream lines(content(folder_ / "whole/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    kept += line + "\n";
    if (line.find("\"split\"") != std::string::npos) break;
  }
  std::ofstream(folder_ / "cut/metrics.jsonl") << kept;
  const Outcome resumed = train("cut", "");
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_EQ(metrics("cut"), metrics("whole"));
}

/// Starts the command with its output in a pipe of one page that is not read before `pause` is over.
Outcome with_a_reader_that_pauses(const std::string& command, std::chrono::milliseconds pause) {
  int ends[2];
  if (::pipe(ends) != 0) return {-1, "no pipe"};
  ::fcntl(ends[1], F_SETPIPE_SZ, 4096);
  const pid_t process = ::fork();
  if (process == 0) {
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::close(ends[0]);
    ::close(ends[1]);
    ::execl("/bin/bash", "bash", "-c", ("exec " + command).c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::this_thread::sleep_for(pause);
  Outcome outcome{-1, ""};
  char block[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], block, sizeof block)) > 0;)
    outcome.output.append(block, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(process, &status, 0);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

TEST_F(Endings, AReaderThatPausesDoesNotStopTraining) {
  const std::string lines =
      "training.steps=60 evaluation.interval=1 evaluation.batches=1 checkpoint.interval=0 "
      "training.watchdog_seconds=2";
  const auto started = Clock::now();
  const Outcome outcome =
      with_a_reader_that_pauses("env " + train_command("paused", lines), std::chrono::seconds(8));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_FALSE(has(outcome, "watchdog")) << outcome.output;
  EXPECT_EQ(metrics("paused").size(), 60u * 4);
  EXPECT_NE(content(folder_ / "paused/log.txt").find("Done: 60 steps"), std::string::npos);
  EXPECT_GE(Clock::now() - started, std::chrono::seconds(8));
}

TEST_F(Endings, ClosedStandardDescriptorsAreNotTakenForFiles) {
  for (const char* closed : {">&-", "<&-", "2>&-", "<&- >&- 2>&-"}) {
    fs::remove_all(folder_ / "closed");
    const Outcome outcome =
        run("exec env " + train_command("closed", std::string("training.steps=5 ") + closed));
    EXPECT_EQ(outcome.exit_code, 0) << closed << outcome.output;
    EXPECT_EQ(metrics("closed").size(), 5u + 3) << closed;  // each line is JSON, or this throws
    EXPECT_EQ(conclave_command("inspect " + path("closed")).exit_code, 0) << closed;
  }
}

}  // namespace
}  // namespace conclave
