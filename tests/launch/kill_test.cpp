// Killed with SIGKILL at random instants, one rank or all, saves in flight included: every restart goes on
// from the newest checkpoint that was committed, and the run ends as if nothing had been. CONCLAVE_KILLS says
// how often.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <thread>

#include "framework/base/random.h"
#include "framework/data/dataset.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/expert_history.h"
#include "framework/store/manifest.h"
#include "launch/train/recipe_text.h"
#include "parallel/journal.h"
#include "tests/counts.h"
#include "tests/launch/command_fixture.h"
#include "tests/launch/launched_job.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

class Kills : public Command {
 protected:
  static constexpr const char* tiny =
      " training.steps=40 checkpoint.interval=3 checkpoint.keep=2 evaluation.interval=10 "
      "logging.samples=true";

  static std::string arguments(const std::string& output, const std::string& overrides) {
    return path("recipe.yaml") + " output=" + path(output) + overrides;
  }
  static std::string mpirun(const std::string& output, const std::string& overrides, int ranks) {
    return "env ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 " + std::string(CONCLAVE_MPIRUN) +
           " --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n " +
           std::to_string(ranks) + " " + CONCLAVE_COMMAND + " train " + arguments(output, overrides);
  }
  static std::string run_script(const std::string& output, const std::string& overrides, int ranks) {
    return "env ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 CONCLAVE=" + std::string(CONCLAVE_COMMAND) +
           " bash " + CONCLAVE_RUN_SCRIPT + " -n " + std::to_string(ranks) + " --restarts 1000 " +
           arguments(output, overrides);
  }
  /// The undisturbed run, made once, and how long its ranks lived.
  static Clock::duration undisturbed() {
    static const Clock::duration lived = [] {
      LaunchedJob job(mpirun("undisturbed", tiny, 2), path("undisturbed.txt"));
      job.wait_for_ranks(2);
      const auto begin = Clock::now();
      EXPECT_EQ(job.wait(), 0) << job.output();
      return Clock::now() - begin;
    }();
    return lived;
  }

  /// One of the processes, or all of them.
  static void kill_some(const std::vector<pid_t>& ranks, const RandomKey& key) {
    if (ranks.empty()) return;
    const std::uint64_t choice = key.below(1, 3 * ranks.size() / 2 + 1);  // about one time in three: all
    for (std::size_t rank = 0; rank < ranks.size(); ++rank)
      if (choice >= ranks.size() || choice == rank) ::kill(ranks[rank], SIGKILL);
  }

  static std::int64_t step_of(const fs::path& checkpoint) {
    return std::atoll(checkpoint.filename().c_str() + 5);
  }

  /// The step of the newest checkpoint after a kill; 0: none was committed. All that carry a name are good,
  /// and none that the log has announced is gone.
  static std::int64_t newest_step(const std::string& output, const std::string& log) {
    const fs::path checkpoints = folder_ / output / "checkpoints";
    std::int64_t newest = 0;
    for (const fs::path& checkpoint : list_checkpoints(checkpoints)) {
      EXPECT_NO_THROW(verify_manifest(checkpoint, ManifestCheck::content)) << log;
      newest = std::max(newest, step_of(checkpoint));
    }
    std::int64_t announced = 0;
    const std::regex saved("Saved [^ ]*/step-([0-9]+):");
    for (std::sregex_iterator match(log.begin(), log.end(), saved), end; match != end; ++match)
      announced = std::max<std::int64_t>(announced, std::stoll((*match)[1]));
    EXPECT_GE(newest, announced) << log;
    return newest;
  }
  /// A start that came as far as training has gone on where the newest checkpoint ends.
  static void expect_start(const std::string& log, std::int64_t newest) {
    const std::string resumed = "Resuming after step " + std::to_string(newest) + " ";
    if (newest == 0) {
      EXPECT_EQ(log.find("Resuming"), std::string::npos) << log;
    } else if (log.find("Ready after") != std::string::npos) {
      EXPECT_NE(log.find(resumed), std::string::npos) << "expected: " << resumed << "\n" << log;
    }
    EXPECT_EQ(log.find("Use another"), std::string::npos)
        << log;  // what a refused checkpoint's sentence says
  }

  static std::string content(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static void expect_as_undisturbed(const std::string& output) {
    ASSERT_EQ(metrics("undisturbed").size(), 40u + 4 * 3);
    EXPECT_EQ(metrics(output), metrics("undisturbed"));
    EXPECT_EQ(content(folder_ / output / "samples.jsonl"), content(folder_ / "undisturbed/samples.jsonl"));
    const CheckpointReader a(folder_ / "undisturbed/checkpoints/step-00000040"),
        b(folder_ / output / "checkpoints/step-00000040");
    ASSERT_EQ(a.names(), b.names());
    for (const std::string& name : a.names()) {
      const std::size_t bytes = a.describe(name).bytes();
      std::vector<char> one(bytes), other(bytes);
      a.read(name, a.describe(name).type, a.describe(name).dims, one.data());
      b.read(name, a.describe(name).type, a.describe(name).dims, other.data());
      EXPECT_EQ(std::memcmp(one.data(), other.data(), bytes), 0) << name;
    }
    const ExpertHistory x = read_expert_history(folder_ / "undisturbed/experts.h5"),
                        y = read_expert_history(folder_ / output / "experts.h5");
    EXPECT_EQ(x.step, y.step);
    EXPECT_EQ(x.counts, y.counts);
    EXPECT_EQ(x.evaluation_counts, y.evaluation_counts);
  }
};

TEST_F(Kills, ProcessesThatEndWhileTheyAreListedDoNoHarm) {
  LaunchedJob job("sleep 100", path("sleep.txt"));
  std::atomic<bool> ended{false};
  std::thread others([&ended] {
    while (!ended) {
      const pid_t child = ::fork();
      if (child == 0) ::_exit(0);
      ::waitpid(child, nullptr, 0);
    }
  });
  for (int look = 0; look < 1000; ++look) EXPECT_NO_THROW(EXPECT_TRUE(job.ranks().empty()));
  ended = true;
  others.join();
}

TEST_F(Kills, AtAnyInstantItGoesOnFromTheNewestCheckpointAndEndsBitEqual) {
  const int wanted = test::count_from_environment("CONCLAVE_KILLS", 12);
  const Clock::duration lifetime = undisturbed();
  int kills = 0, runs = 0, from_nothing = 0, saves_cut = 0;
  for (std::uint64_t start = 0; kills < wanted; ++runs) {
    const std::string output = "killed" + std::to_string(runs), log = path(output + ".txt");
    std::int64_t newest = 0;
    for (bool ended = false; !ended && !HasFailure();) {
      const RandomKey key = RandomKey(17).with(start++);
      LaunchedJob job(mpirun(output, tiny, 2), log);
      job.wait_for_ranks(2);
      const auto delay =
          lifetime * static_cast<std::int64_t>(key.below(0, 1'000'000)) / std::int64_t{1'000'000};
      ended = job.ends_before(Clock::now() + delay);
      if (kills == wanted) ended = true;  // the last run is let to its end
      if (!ended) {
        const std::vector<pid_t> ranks = job.ranks();
        kill_some(ranks, key);
        ended = job.wait() == 0;  // it may have been over in between
        kills += ended ? 0 : 1;
      }
      if (ended) {
        ASSERT_EQ(job.wait(), 0) << job.output();
      }
      expect_start(job.output(), newest);
      newest = newest_step(output, job.output());
      from_nothing += newest == 0;
      std::error_code none_yet;
      for (const auto& left : fs::directory_iterator(folder_ / output / "checkpoints", none_yet))
        saves_cut += left.path().extension() == ".partial";
    }
    if (HasFailure()) break;
    expect_as_undisturbed(output);
    fs::remove_all(folder_ / output);
    if (wanted > 50) {
      std::printf("%d of %d kills, %d runs ended bit-equal\n", kills, wanted, runs + 1);
      std::fflush(stdout);
    }
  }
  std::printf("%d kills in %d runs; %d before anything was committed, %d with a save cut off\n", kills, runs,
              from_nothing, saves_cut);
}

TEST_F(Kills, UnderRunScriptToo) {
  const int wanted = std::max(1, test::count_from_environment("CONCLAVE_KILLS", 12) / 8);
  const Clock::duration lifetime = undisturbed();
  int kills = 0;
  std::uint64_t start = 0;
  for (int runs = 0; kills < wanted && !HasFailure(); ++runs) {
    const std::string output = "script" + std::to_string(runs);
    int code = -1;
    for (int calls = 0; code != 0 && calls < 100; ++calls) {
      LaunchedJob job(run_script(output, tiny, 2), path(output + ".txt"));
      std::set<pid_t> known;
      // Each set of ranks that run.sh starts is killed some time later, as long as there are kills to do.
      while (kills < wanted) {
        const std::vector<pid_t> ranks = job.wait_for_ranks(2);
        const RandomKey key = RandomKey(18).with(start++);
        const auto delay = lifetime * static_cast<std::int64_t>(key.below(0, 1000)) / std::int64_t{1000};
        if (job.ends_before(Clock::now() + delay)) break;
        if (ranks.size() < 2 || known.contains(ranks[0])) continue;
        kill_some(ranks, key);
        known.insert(ranks.begin(), ranks.end());
        ++kills;
      }
      code = job.wait();
      // Two kills without a checkpoint in between look like a failure that comes back.
      ASSERT_TRUE(code == 0 || job.output().find("giving up: no progress") != std::string::npos)
          << code << job.output();
      newest_step(output, job.output());
    }
    ASSERT_EQ(code, 0);
    expect_as_undisturbed(output);
    fs::remove_all(folder_ / output);
  }
}

TEST_F(Kills, EverySampleIsTakenOnceOverTenKillsAndTwoChangesOfTheRanks) {
  const std::string output = "moving", overrides =
                                           " training.steps=200 checkpoint.interval=3 checkpoint.keep=2 "
                                           "evaluation.interval=0 logging.samples=true";
  std::int64_t newest = 0;
  std::uint64_t start = 0;
  for (const auto& [ranks, kills] : std::vector<std::pair<int, int>>{{1, 3}, {2, 4}, {4, 3}}) {
    const std::int64_t before = newest;
    for (int kill = 0; kill < kills; ++kill) {
      const RandomKey key = RandomKey(19).with(start++);
      LaunchedJob job(mpirun(output, overrides, ranks), path("moving.txt"));
      const std::int64_t target = newest + 6 + static_cast<std::int64_t>(key.below(0, 12));
      const auto is_there = [&] {
        const auto record = read_journal(folder_ / output / "ranks", 0);
        const std::vector<pid_t> processes = job.ranks();
        return record && record->step >= target &&
               std::count(processes.begin(), processes.end(), record->process) > 0;
      };
      while (!is_there() && !job.ends_before(Clock::now() + std::chrono::milliseconds(5))) {
      }
      kill_some(job.ranks(), key);
      ASSERT_NE(job.wait(), 0) << job.output();
      expect_start(job.output(), newest);
      newest = newest_step(output, job.output());
    }
    EXPECT_GT(newest, before) << "nothing was trained on " << ranks << " ranks";
  }
  LaunchedJob job(mpirun(output, overrides, 4), path("moving.txt"));
  ASSERT_EQ(job.wait(), 0) << job.output();
  expect_start(job.output(), newest);

  // The plan, from its own parts.
  const Recipe recipe = parse_recipe(content(path("recipe.yaml")), "recipe.yaml");
  SamplePlan plan({1, 1}, recipe.data.domain_block, recipe.training.seed, [](std::int64_t) { return 8; });
  TokenizerFacts tokenizer(recipe.data.tokenizer);
  std::vector<Dataset> datasets;
  for (const DatasetRecipe& train : recipe.data.train)
    datasets.emplace_back(train, recipe.data, recipe.model.vocab_size, tokenizer);
  std::set<std::pair<std::int64_t, std::int64_t>> taken;
  std::int64_t step = 0;
  std::ifstream log(folder_ / output / "samples.jsonl");
  for (std::string line; std::getline(log, line); ++step) {
    const Json json = parse_json(line);
    ASSERT_EQ(json["step"], step + 1);
    const std::vector<SampleId> planned = plan.step(step);
    ASSERT_EQ(json["draw"].size(), planned.size()) << line;
    for (std::size_t i = 0; i < planned.size(); ++i) {
      const Dataset& dataset = datasets[static_cast<std::size_t>(planned[i].domain)];
      EXPECT_EQ(json["dataset"][i], planned[i].domain) << line;
      EXPECT_EQ(json["draw"][i], planned[i].sample) << line;
      EXPECT_EQ(json["sequence"][i], dataset.shuffled(planned[i].sample, recipe.training.seed)) << line;
      EXPECT_TRUE(taken.emplace(json["dataset"][i], json["draw"][i]).second) << "twice: " << line;
    }
  }
  EXPECT_EQ(step, 200);
  EXPECT_EQ(taken.size(), 200u * 8);
  for (const std::int64_t dataset : {0, 1})
    EXPECT_TRUE(taken.contains({dataset, 0}) && taken.contains({dataset, 100 * 8 - 1}))
        << "draws are left out";
}

}  // namespace
}  // namespace conclave
