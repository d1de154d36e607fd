// A machine may refuse threads, memory, locks and code that is made at run time, and files may become shorter
// while they are read. Each is one true sentence and the exit code that reliability.md names; a save
// that fails so does not end training.
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <fstream>
#include <future>
#include <thread>

#include "framework/store/checkpoint_directory.h"
#include "parallel/journal.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class Refusals : public Command {
 protected:
  static constexpr const char* endless =
      "training.steps=1000000 checkpoint.interval=0 evaluation.interval=0 ";

  static bool has(const Outcome& outcome, const std::string& part) {
    return outcome.output.find(part) != std::string::npos;
  }
  /// `environment`: what the machine refuses, as refusing_machine.cpp reads it.
  static std::string command(const std::string& environment, const std::string& output,
                             const std::string& overrides) {
    return "exec env OMP_NUM_THREADS=1 LD_PRELOAD=" + std::string(CONCLAVE_REFUSING_MACHINE) + " " +
           environment + " timeout 100 " + CONCLAVE_COMMAND + " train " + path("recipe.yaml") +
           " output=" + path(output) + " " + overrides;
  }
  static pid_t wait_for_step(const std::string& output, std::int64_t step) {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      const auto record = read_journal(folder_ / output / "ranks", 0);
      if (record && record->step >= step) return static_cast<pid_t>(record->process);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return 0;
  }
  static void wait_for_words(const fs::path& file, const std::string& words) {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      std::ifstream stream(file);
      const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
      if (text.find(words) != std::string::npos) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "'" << words << "' did not come";
  }
};

TEST_F(Refusals, WithoutThreadsARunDoesNotBeginAndSaysWhy) {
  std::ofstream(path("none"));
  const Outcome outcome = run(command("CONCLAVE_REFUSE_THREADS=" + path("none"), "threads", ""));
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  EXPECT_TRUE(has(outcome, "gives this process no further thread")) << outcome.output;
  EXPECT_FALSE(has(outcome, "bug")) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;  // MPI's libraries may say more
}

TEST_F(Refusals, ASaveWithoutAThreadOrMemoryFailsAndTrainingGoesOn) {
  for (const auto& [refusal, words] :
       {std::pair{"THREADS", " failed: The machine gives this process no further thread"},
        std::pair{"MEMORY", " failed: The machine has no memory left for this process"}}) {
    const std::string output = refusal, switch_file = path(output + "-refused");
    std::future<Outcome> job = std::async(std::launch::async, [&] {
      return run(command("CONCLAVE_REFUSE_" + output + "=" + switch_file, output,
                         std::string(endless) + "checkpoint.interval=20 checkpoint.keep=1"));
    });
    const pid_t process = wait_for_step(output, 30);
    ASSERT_GT(process, 0);
    std::ofstream(switch_file) << "";
    wait_for_words(folder_ / output / "log.txt", words);
    fs::remove(switch_file);
    const auto record = read_journal(folder_ / output / "ranks", 0);
    ASSERT_TRUE(record) << "the run has ended";
    ASSERT_GT(wait_for_step(output, record->step + 60), 0);
    ::kill(process, SIGTERM);
    const Outcome outcome = job.get();
    EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
    EXPECT_TRUE(has(outcome, "Saving after step") && has(outcome, "Training goes on")) << outcome.output;
    EXPECT_GT(step_of_name(list_checkpoints(folder_ / output / "checkpoints").at(0)), record->step);
  }
}

TEST_F(Refusals, AHangupThatIsIgnoredStaysSoWhateverLibrariesDo) {
  std::future<Outcome> job = std::async(std::launch::async, [&] {
    // `timeout` has a handler of its own for hangups, so they are ignored after it.
    std::string ignoring = command("CONCLAVE_REFUSE_HANGUPS=1", "deaf", endless);
    const std::size_t at = ignoring.find(CONCLAVE_COMMAND);
    ignoring.insert(at, "bash -c 'trap \"\" HUP; exec ");
    return run(ignoring + "'");
  });
  const pid_t process = wait_for_step("deaf", 5);
  ASSERT_GT(process, 0);
  ::kill(process, SIGHUP);
  const auto record = read_journal(folder_ / "deaf/ranks", 0);
  ASSERT_TRUE(record) << "the run has ended";
  EXPECT_GT(wait_for_step("deaf", record->step + 20), 0);
  ::kill(process, SIGTERM);
  const Outcome outcome = job.get();
  EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
}

TEST_F(Refusals, WithoutMemoryARunEndsWithASentence) {
  std::future<Outcome> job = std::async(
      std::launch::async, [] { return train("memory", std::string(endless) + "checkpoint.interval=20"); });
  const pid_t process = wait_for_step("memory", 30);
  ASSERT_GT(process, 0);
  const ::rlimit none{1 << 20, RLIM_INFINITY};  // below what the process has, so nothing more is given
  ASSERT_EQ(::prlimit(process, RLIMIT_AS, &none, nullptr), 0);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  ::kill(process, SIGTERM);  // it may also get by with what it has
  const Outcome outcome = job.get();
  EXPECT_TRUE(outcome.exit_code == 5 || outcome.exit_code == 75) << outcome.output;
  EXPECT_FALSE(has(outcome, "terminate called") || has(outcome, "bug")) << outcome.output;
  if (outcome.exit_code == 5) {
    EXPECT_TRUE(has(outcome, "memory")) << outcome.output;
  }
}

TEST_F(Refusals, AFileSystemWithoutLocksIsNamed) {
  const Outcome outcome = run(command("CONCLAVE_REFUSE_LOCKS=1", "locks", ""));
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  EXPECT_TRUE(has(outcome, "gives no locks (flock: No locks available)")) << outcome.output;
  EXPECT_FALSE(has(outcome, "another run writes")) << outcome.output;
}

TEST_F(Refusals, WithoutMemoryForCodeTheSentenceSaysSo) {
  for (const char* precision : {"fp32", "bf16"}) {
    const Outcome outcome = run(command("CONCLAVE_REFUSE_CODE=1", std::string("code-") + precision,
                                        std::string("training.precision=") + precision));
    // Some versions of oneDNN have something to fall back on; then the run is only slower.
    if (outcome.exit_code == 0) continue;
    EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
    EXPECT_TRUE(has(outcome, "memory that is written and executed")) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
  }
}

TEST_F(Refusals, ATokenFileThatIsCutShortEndsTheRunWithThree) {
  for (const int ranks : {1, 2}) {
    const std::string name = "short" + std::to_string(ranks);
    for (const char* ending : {".bin", ".idx", ".json"})
      fs::copy_file(path("numbers") + ending, path(name) + ending);
    std::future<Outcome> job = std::async(std::launch::async, [&] {
      return train(name + "-run",
                   std::string(endless) + "'data.train=[{path: " + path(name) + ", domain: numbers}]'",
                   ranks);
    });
    ASSERT_GT(wait_for_step(name + "-run", 5), 0);
    fs::resize_file(path(name) + ".bin", 40);
    const Outcome outcome = job.get();
    EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
    EXPECT_TRUE(has(outcome, "it was cut short while it was in use")) << outcome.output;
    EXPECT_TRUE(has(outcome, path(name) + ".bin")) << outcome.output;
  }
}

}  // namespace
}  // namespace conclave
