// launch/run.sh: one line for each thing it does, requests to stop forwarded, restarts with progress and none
// without.
#include <signal.h>

#include <chrono>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include "framework/store/checkpoint_directory.h"
#include "parallel/journal.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

class RunScript : public Command {
 protected:
  static Outcome script(const std::string& arguments, const std::string& environment = "") {
    return run(
        "export ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 CONCLAVE=" + std::string(CONCLAVE_COMMAND) +
        " " + environment + "; exec timeout 100 bash " + CONCLAVE_RUN_SCRIPT + " " + arguments);
  }
  static std::string recipe(const std::string& output) {
    return path("recipe.yaml") + " output=" + path(output) + " ";
  }
  static pid_t process_of(const std::string& output, int rank, std::int64_t step) {
    for (int attempt = 0; attempt < 600; ++attempt) {
      const auto record = read_journal(folder_ / output / "ranks", rank);
      if (record && record->step >= step) return static_cast<pid_t>(record->process);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return 0;
  }
  /// A program in place of `conclave` that checks recipes as it does, and whose training is this shell text.
  static std::string stand_in(const std::string& name, const std::string& training) {
    const std::string file = path(name);
    std::ofstream(file) << "#!/bin/bash\n"
                        << "if [ \"$1\" != train ]; then exec " << CONCLAVE_COMMAND << " \"$@\"; fi\n"
                        << training << "\n";
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
    return "CONCLAVE=" + file;
  }
};

TEST_F(RunScript, HelpAndRefusals) {
  const Outcome help = script("--help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_NE(help.output.find("usage: bash launch/run.sh -n N [--restarts K]"), std::string::npos)
      << help.output;
  for (const char* arguments :
       {"-n 0 r.yaml", "-n", "r.yaml", "-n 2", "-n 2 --restarts x r.yaml", "-n 2 --fast r.yaml", "-nx r.yaml",
        "r.yaml -n 2 --restarts=x", "-n 2 r.yaml --fast"})
    EXPECT_EQ(script(arguments).exit_code, 2) << arguments;
  const Outcome wrong = script("-n 2 " + recipe("none") + "model.moe.num_expert=3");
  EXPECT_EQ(wrong.exit_code, 2) << wrong.output;
  EXPECT_EQ(occurrences(wrong.output, "num_expert:"), 1u) << wrong.output;
}

TEST_F(RunScript, OptionsMayStandAnywhereAndHaveAnEqualsSign) {
  const std::string failing = stand_in("options", "exit 5");
  for (const std::string& arguments :
       {recipe("options") + "-n 1 --restarts 0", recipe("options") + "-n1 --restarts=0",
        "-n=1 " + recipe("options") + "--restarts=0", "--restarts=0 -n 1 -- " + recipe("options")}) {
    const Outcome outcome = script(arguments, failing);
    EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
    EXPECT_NE(outcome.output.find("giving up after 0 restarts (--restarts 0)"), std::string::npos)
        << arguments << outcome.output;
    EXPECT_NE(outcome.output.find("starting 1 rank with " + path("recipe.yaml")), std::string::npos)
        << arguments << outcome.output;
  }
  EXPECT_NE(script("--help").output.find("138"), std::string::npos);
}

TEST_F(RunScript, AKilledRankIsStartedAgainAndTheRunEndsAsIfNothingHadBeen) {
  const std::string steps =
      "training.steps=200 checkpoint.interval=20 checkpoint.keep=2 evaluation.interval=0";
  std::future<Outcome> job =
      std::async(std::launch::async, [&] { return script("-n 2 " + recipe("killed") + steps); });
  const pid_t process = process_of("killed", 1, 25);
  ASSERT_GT(process, 0);
  // On a busy machine the save of step 20 may take some more steps.
  for (int attempt = 0; attempt < 600 && list_checkpoints(folder_ / "killed/checkpoints").empty(); ++attempt)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_EQ(::kill(process, SIGKILL), 0);
  const Outcome outcome = job.get();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("run.sh: a rank died of signal 9 (KILL)"), std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find("run.sh: starting again from step-000000"), std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find("restart 1 of at most 3"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("run.sh: done"), std::string::npos) << outcome.output;
  ASSERT_EQ(train("undisturbed", steps, 2).exit_code, 0);
  EXPECT_EQ(metrics("killed"), metrics("undisturbed"));
}

TEST_F(RunScript, ARankWithoutSurvivorsIsNamedToo) {
  std::future<Outcome> job = std::async(std::launch::async, [&] {
    return script("-n 1 --restarts 0 " + recipe("lonely") +
                  "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0");
  });
  const pid_t process = process_of("lonely", 0, 10);
  ASSERT_GT(process, 0);
  const Outcome alive = conclave_command("ranks " + path("lonely"));
  EXPECT_NE(alive.output.find("rank 0, process " + std::to_string(process)), std::string::npos)
      << alive.output;
  EXPECT_EQ(alive.output.find("not responding"), std::string::npos) << alive.output;
  ASSERT_EQ(::kill(process, SIGKILL), 0);
  const Outcome outcome = job.get();
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  EXPECT_NE(outcome.output.find("rank 0 (process " + std::to_string(process) + " on "), std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find(") died in "), std::string::npos) << outcome.output;
}

TEST_F(RunScript, SignalsAreForwardedAndNothingIsStartedAgain) {
  std::map<int, std::future<Outcome>> jobs;
  const auto output_of = [](int signal) { return "asked" + std::to_string(signal); };
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1})
    // The shell in between tells its own process id, which `exec` hands to the script.
    jobs[signal] = std::async(std::launch::async, [output = output_of(signal)] {
      return run(
          "export OMP_NUM_THREADS=1 CONCLAVE=" + std::string(CONCLAVE_COMMAND) + "; bash -c 'echo $$ > " +
          path(output + ".pid") + "; exec bash " + CONCLAVE_RUN_SCRIPT + " -n 2 " + recipe(output) +
          "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0 training.time_limit=90'");
    });
  for (auto& [signal, job] : jobs) {
    const std::string output = output_of(signal);
    EXPECT_GT(process_of(output, 0, 10), 0);
    pid_t script_process = 0;
    std::ifstream(path(output + ".pid")) >> script_process;
    ASSERT_GT(script_process, 0);
    ASSERT_EQ(::kill(script_process, signal), 0);
    const Outcome outcome = job.get();
    EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "run.sh: starting 2 ranks"), 1u) << outcome.output;
    EXPECT_NE(outcome.output.find("run.sh: stopped on request and saved"), std::string::npos)
        << outcome.output;
    EXPECT_FALSE(std::filesystem::is_empty(folder_ / output / "checkpoints"));
  }
}

TEST_F(RunScript, AReaderThatGoesAwayLeavesNoJobBehind) {
  // As `| tee log` after a Ctrl-C, which ends tee and asks run.sh to stop.
  std::future<Outcome> job = std::async(std::launch::async, [] {
    return run("export OMP_NUM_THREADS=1 CONCLAVE=" + std::string(CONCLAVE_COMMAND) +
               "; bash -c 'bash -c \"echo \\$\\$ > " + path("unread.pid") + "; exec bash " +
               CONCLAVE_RUN_SCRIPT + " -n 2 " + recipe("unread") +
               "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0 training.time_limit=90\" "
               "| head -n 1; exit "
               "${PIPESTATUS[0]}'");
  });
  const pid_t rank = process_of("unread", 0, 40);  // has said more than head reads
  ASSERT_GT(rank, 0);
  pid_t script_process = 0;
  std::ifstream(path("unread.pid")) >> script_process;
  ASSERT_GT(script_process, 0);
  ASSERT_EQ(::kill(script_process, SIGINT), 0);
  const Outcome outcome = job.get();
  EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
  EXPECT_FALSE(std::filesystem::is_empty(folder_ / "unread/checkpoints"));
  // A process that has ended may stand in the table for a moment longer.
  for (int waits = 0; waits < 100 && ::kill(rank, 0) == 0; ++waits)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_NE(::kill(rank, 0), 0) << "the rank trains on";
}

TEST_F(RunScript, AReaderThatGoesAwayEndsNothing) {
  // As `| head -n 2`: mpirun itself would die of the closed pipe, and all ranks with it.
  for (const std::string pipe : {" | head -n 2", " 2>&1 | head -n 2", " >&- 2>&-"}) {
    const std::string output = "unheard" + std::to_string(pipe.size());
    const Outcome outcome =
        run("export OMP_NUM_THREADS=1 CONCLAVE=" + std::string(CONCLAVE_COMMAND) +
            "; bash -c 'timeout 100 bash " + CONCLAVE_RUN_SCRIPT + " -n 2 " + recipe(output) +
            "training.steps=60 training.time_limit=90" + pipe + "; exit ${PIPESTATUS[0]}'");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    std::ifstream file(path(output + "/log.txt"));
    const std::string log{std::istreambuf_iterator<char>(file), {}};
    EXPECT_EQ(occurrences(log, "---- "), 1u) << "it was started again\n" << log;
    EXPECT_EQ(occurrences(log, "Done: 60 steps"), 1u) << log;
  }
}

TEST_F(RunScript, ItsReadersShowAllThatWasSaidAndGo) {
  const std::string speaks = stand_in("speaks",
                                      "for ((i = 0; i < 3000; i++)); do echo line $i; done; "
                                      "echo wrong >&2; exit 3");
  // Open MPI 5's own mpirun loses the end of what a rank that fails has said, so another one stands here.
  std::filesystem::create_directory(path("bin"));
  std::ofstream(path("bin/mpirun")) << "#!/bin/bash\n"
                                    << "while [ $# -gt 0 ] && [ \"$1\" != -n ]; do shift; done\n"
                                    << "exec \"${@:3}\"\n";
  std::filesystem::permissions(path("bin/mpirun"), std::filesystem::perms::owner_all);
  const Outcome outcome = script("-n 1 " + recipe("spoken"), speaks + " PATH=" + path("bin") + ":$PATH");
  EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
  EXPECT_NE(outcome.output.find("line 2999"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("wrong"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("run.sh: ended with exit code 3"), std::string::npos) << outcome.output;
}

TEST_F(RunScript, AnOutputIsReadAsTheRecipeMeansIt) {
  const std::string program = stand_in("quits", "exit 3");
  for (const std::string name : {"a b", "quo\"te", "back\\slash", "apo'strophe", "hash #1",
                                 "dollar $HOME `id`", "colon: x", "'quoted'"}) {
    const std::string output = path(name);
    std::string yaml = "output='", word = "'";
    for (const char c : output) yaml += c == '\'' ? "''" : std::string(1, c);
    for (const char c : yaml + "'") word += c == '\'' ? "'\\''" : std::string(1, c);
    const Outcome outcome = script("-n 1 " + path("recipe.yaml") + " " + word + "'", program);
    EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
    EXPECT_NE(outcome.output.find(", writing to " + output + "\n"), std::string::npos) << outcome.output;
    const Outcome printed =
        conclave_command("validate " + path("recipe.yaml") + " " + word + "' --print output");
    EXPECT_EQ(printed.output, output + "\n");
  }
}

TEST_F(RunScript, WithoutProgressItGivesUpAfterTheSecondFailure) {
  const Outcome outcome =
      script("-n 1 --restarts 9 " + recipe("stuck"), stand_in("fails", "echo failing; exit 5"));
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "failing"), 2u) << outcome.output;
  EXPECT_NE(
      outcome.output.find("giving up: no progress since the failure before, there is no checkpoint yet"),
      std::string::npos)
      << outcome.output;
}

TEST_F(RunScript, WithProgressItGoesOnUpToTheLimit) {
  // Every start leaves one more checkpoint and fails.
  const Outcome outcome =
      script("-n 1 --restarts 1 " + recipe("slow"),
             stand_in("progresses", "at=" + path("slow") +
                                        "/checkpoints; mkdir -p $at; number=$(ls $at | wc -l); mkdir "
                                        "$at/step-0000000$number; touch "
                                        "$at/step-0000000$number/manifest.json; exit 5"));
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "run.sh: starting 1 rank "), 2u) << outcome.output;
  EXPECT_NE(outcome.output.find("giving up after 1 restart "), std::string::npos) << outcome.output;
}

TEST_F(RunScript, WhatARestartCannotMendIsNotStartedAgain) {
  // All programs are written before the first job starts: a process that is forked while one is open for
  // writing holds it open, and nobody can execute it then.
  std::map<int, std::string> programs;
  for (const int code : {2, 3, 4, 75})
    programs[code] = stand_in("ends" + std::to_string(code) + ".sh", "exit " + std::to_string(code));
  std::map<int, std::future<Outcome>> jobs;
  for (const auto& [code, program] : programs)
    jobs[code] = std::async(std::launch::async, [code = code, program = program] {
      return script("-n 1 " + recipe("ends" + std::to_string(code)), program);
    });
  for (auto& [code, job] : jobs) {
    const Outcome outcome = job.get();
    EXPECT_EQ(outcome.exit_code, code) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "run.sh: starting 1 rank "), 1u) << outcome.output;
  }
}

}  // namespace
}  // namespace conclave
