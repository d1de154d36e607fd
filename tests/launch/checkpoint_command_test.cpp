// Checkpoints as users meet them: a disk that fills up, files that are damaged, cut short or gone, runs that
// begin with another one's weights. CONCLAVE_FLIPS and CONCLAVE_TRUNCATIONS (lengths of each file) say how
// often.
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "framework/base/error.h"
#include "framework/base/random.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "tests/counts.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class CheckpointCommand : public Command {
 protected:
  static void expect_words(const Outcome& outcome, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(outcome.output.find(word), std::string::npos) << "'" << word << "' is not in\n"
                                                              << outcome.output;
  }
  static std::vector<double> losses(const std::string& output) {
    std::vector<double> found;
    for (const Json& line : metrics(output))
      if (!line.contains("split")) found.push_back(line["lm_loss"]);
    return found;
  }
  static std::vector<std::string> names(const fs::path& directory) {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(directory))
      found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }
  /// A run of ten steps on two ranks, with checkpoints at 5 and 10.
  static void make_run(const std::string& output) {
    const Outcome outcome = train(output, "", 2);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    ASSERT_EQ(names(folder_ / output / "checkpoints"),
              (std::vector<std::string>{"step-00000005", "step-00000010"}));
  }
  static std::vector<fs::path> files_of(const fs::path& directory) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }
};

TEST_F(CheckpointCommand, InspectFindsAFlippedByteAnywhere) {
  make_run("flipped");
  const fs::path checkpoint = folder_ / "flipped/checkpoints/step-00000010";
  const std::vector<fs::path> files = files_of(checkpoint);
  ASSERT_EQ(files.size(), 4u);  // index.h5, manifest.json, one file of each rank
  EXPECT_EQ(conclave_command("inspect " + checkpoint.string()).exit_code, 0);
  const RandomKey key = RandomKey(7).with("flips");
  const auto flips = static_cast<std::uint64_t>(test::count_from_environment("CONCLAVE_FLIPS", 100));
  for (std::uint64_t flip = 0; flip < flips; ++flip) {
    const fs::path& file = files[flip % files.size()];
    const std::uint64_t offset = key.below(2 * flip, fs::file_size(file));
    const int bit = 1 << key.below(2 * flip + 1, 8);
    const auto toggle = [&] {
      std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
      bytes.seekg(static_cast<std::streamoff>(offset));
      const int byte = bytes.get();
      bytes.seekp(static_cast<std::streamoff>(offset));
      bytes.put(static_cast<char>(byte ^ bit));
    };
    toggle();
    const Outcome outcome = conclave_command("inspect " + checkpoint.string());
    EXPECT_EQ(outcome.exit_code, 3) << file << " byte " << offset << " bit " << bit << outcome.output;
    expect_words(outcome, {file.filename().string()});
    if (flip % 20 == 7) {  // `train` looks with the same eyes, and writes its last step again, whole
      const Outcome resumed = train("flipped", "", 2);
      EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
      expect_words(resumed, {"step-00000010", file.filename().string(), "Resuming after step 5"});
    } else {
      toggle();
    }
    if (flips > 500 && flip % 100 == 99) {
      std::printf("%d of %d flips were found\n", static_cast<int>(flip + 1), static_cast<int>(flips));
      std::fflush(stdout);
    }
  }
  const Outcome good = conclave_command("inspect " + checkpoint.string());
  EXPECT_EQ(good.exit_code, 0) << good.output;
  expect_words(good, {"layout_ranks: 2", "rank-00001.h5", "model.embed_tokens.weight  float32 [264, 32]",
                      "previous_fractions  float64 [2, 4]", "every checksum is right"});
}

TEST_F(CheckpointCommand, EachFileCutShortOrMissingIsNamedAndTheOlderOneTaken) {
  make_run("short");
  const fs::path checkpoint = folder_ / "short/checkpoints/step-00000010", whole = folder_ / "whole-copy";
  fs::copy(folder_ / "short", whole, fs::copy_options::recursive);
  const auto lengths = static_cast<std::uint64_t>(test::count_from_environment("CONCLAVE_TRUNCATIONS", 1));
  for (const fs::path& file : files_of(checkpoint))
    for (std::uint64_t cut = 0; cut <= lengths; ++cut) {
      if (cut == lengths)
        fs::remove(file);
      else
        fs::resize_file(file, fs::file_size(file) * (2 * cut + 1) / (2 * lengths));
      EXPECT_EQ(conclave_command("inspect " + checkpoint.string()).exit_code, 3) << file << " " << cut;
      const Outcome resumed = train("short", "", 2);
      EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
      expect_words(resumed, {"step-00000010", file.filename().string(), "Resuming after step 5"});
      // The run wrote its last step again, whole.
      EXPECT_EQ(conclave_command("inspect " + checkpoint.string()).exit_code, 0);
      EXPECT_EQ(losses("short"), losses("whole-copy"));
    }
}

TEST_F(CheckpointCommand, WithoutAnyGoodOneItNeverStartsAnew) {
  make_run("hopeless");
  for (const char* step : {"step-00000005", "step-00000010"})
    fs::resize_file(folder_ / "hopeless/checkpoints" / step / "rank-00001.h5", 5000);
  for (const int ranks : {1, 2}) {
    const Outcome outcome = train("hopeless", "", ranks);
    EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
    expect_words(outcome, {"no checkpoint in", "is good", "step-00000005", "step-00000010", "rank-00001.h5",
                           "5000 bytes, expected"});
    EXPECT_EQ(losses("hopeless").size(), 10u);
  }
}

TEST_F(CheckpointCommand, LeftoversOfACrashAreClearedAndNeverLoaded) {
  make_run("crashed");
  const fs::path checkpoints = folder_ / "crashed/checkpoints";
  fs::rename(checkpoints / "step-00000010", checkpoints / "step-00000010.partial");
  fs::create_directory(checkpoints / "step-00000099.partial");
  std::ofstream(checkpoints / "step-00000099.partial" / "rank-00000.h5") << "half";
  const Outcome outcome = train("crashed", "", 2);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  expect_words(outcome, {"Resuming after step 5"});
  EXPECT_EQ(names(checkpoints), (std::vector<std::string>{"step-00000005", "step-00000010"}));
}

// Files may not grow to what a checkpoint needs, as on a disk that fills up while it is written: the run goes
// on, says so, and ends with 5 because its last state is not safe. Nothing crashes on the way out. (Several
// ranks of which one cannot write: checkpointing_test.cpp.)
TEST_F(CheckpointCommand, ASaveThatFailsDoesNotEndTheRunUnlessItIsTheLast) {
  for (const char* asynchronous : {"true", "false"}) {
    const std::string output = std::string("full-") + asynchronous;
    ASSERT_EQ(train(output, "training.steps=5").exit_code, 0);
    const Outcome outcome =
        run("export ASAN_OPTIONS=detect_leaks=0; bash -c 'ulimit -f 400; OMP_NUM_THREADS=1 exec " +
            std::string(CONCLAVE_COMMAND) + " train " + path("recipe.yaml") + " output=" + path(output) +
            " checkpoint.interval=2 training.steps=9 checkpoint.asynchronous=" + asynchronous + "'");
    EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
    expect_words(outcome, {"Saving after step 6 failed", "rank-00000.h5: File too large", "Training goes on",
                           "Saving after step 9 failed", "the last save of this run"});
    EXPECT_EQ(losses(output).size(), 9u);
    EXPECT_EQ(names(folder_ / output / "checkpoints"), std::vector<std::string>{"step-00000005"});
    const Outcome resumed = train(output, "training.steps=9");
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    expect_words(resumed, {"Resuming after step 5"});
  }
}

TEST_F(CheckpointCommand, AFullFileSystemIsForeseen) {
  const fs::path mount = folder_ / "small-disk";
  fs::create_directory(mount);
  if (::mount("tmpfs", mount.c_str(), "tmpfs", 0, "size=1500k") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted here";
  const Outcome outcome = train("small-disk", "checkpoint.interval=3 checkpoint.keep=1", 2);
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  expect_words(outcome, {"Saving after step 6 failed", "free bytes", "Training goes on",
                         "the last good checkpoint is", "step-00000003"});
  EXPECT_EQ(losses("small-disk").size(), 10u);
  EXPECT_EQ(names(mount / "checkpoints"), std::vector<std::string>{"step-00000003"});
  ::umount(mount.c_str());
}

TEST_F(CheckpointCommand, AFailedLastSaveSaysWhatIsThere) {
  // Files may not become as large as a checkpoint.
  const auto limited = [](const std::string& output) {
    return run("ulimit -f 200; OMP_NUM_THREADS=1 " + std::string(CONCLAVE_COMMAND) + " train " +
               path("recipe.yaml") + " output=" + path(output) + " evaluation.interval=0");
  };
  const Outcome fresh = limited("nothing-saved");
  EXPECT_EQ(fresh.exit_code, 5) << fresh.output;
  expect_words(fresh, {"Saving after step 5 failed", "Training goes on; there is no checkpoint yet",
                       "Saving after step 10 failed", "There is no checkpoint, so what was learnt is lost",
                       "When the cause is mended, the same command begins anew"});
  EXPECT_EQ(occurrences(fresh.output, "Training goes on"), 1u) << "after the last step nothing goes on";
  ASSERT_EQ(train("saved", "training.steps=5").exit_code, 0);
  const Outcome resumed = limited("saved");
  EXPECT_EQ(resumed.exit_code, 5) << resumed.output;
  expect_words(resumed, {"Saving after step 10 failed",
                         "since the last good checkpoint, " + path("saved/checkpoints/step-00000005"),
                         "the same command goes on from there"});
  EXPECT_EQ(occurrences(resumed.output, "Training goes on"), 0u) << resumed.output;
  for (const Outcome& outcome : {fresh, resumed}) EXPECT_EQ(occurrences(outcome.output, "Make room"), 0u);
}

TEST_F(CheckpointCommand, ARunBeginsWithWhatItTakesFromAnother) {
  const std::string same = "optimizer.schedule.warmup_steps=0 'model.moe.balance=[{scope: micro_batch}]' ";
  ASSERT_EQ(train("source", same, 2).exit_code, 0);
  ASSERT_EQ(train("source-on", same + "training.steps=15 checkpoint.initialize_from=" + path("nothing"), 1)
                .exit_code,
            3);
  fs::copy(folder_ / "source", folder_ / "longer", fs::copy_options::recursive);
  ASSERT_EQ(train("longer", same + "training.steps=15").exit_code, 0);
  const std::vector<double> longer = losses("longer");

  const std::string from = same + "training.steps=5 checkpoint.initialize_from=" + path("source") + " ";
  const Outcome all = train("all", from + "'checkpoint.take=[parameters, optimizer, data_position]'", 2);
  ASSERT_EQ(all.exit_code, 0) << all.output;
  expect_words(
      all, {"Starting with the parameters, optimizer, data_position of", "source/checkpoints/step-00000010"});
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(losses("all")[i], longer[10 + i], 1e-5) << i;
  const CheckpointReader reader(folder_ / "all/checkpoints/step-00000005");
  EXPECT_EQ(reader.integer("sequences"), 5 * 8);
  EXPECT_EQ(reader.integer("sequences_skipped"), 10 * 8);
  EXPECT_EQ(reader.integer("optimizer_updates"), 15);

  // Resuming needs the other run no more, and its data goes on.
  fs::rename(folder_ / "source", folder_ / "elsewhere");
  ASSERT_EQ(train("longer", same + "training.steps=18").exit_code, 0);
  ASSERT_EQ(train("all", from + "training.steps=8 'checkpoint.take=[parameters]'").exit_code, 0);
  for (std::size_t i = 5; i < 8; ++i) EXPECT_NEAR(losses("all")[i], losses("longer")[10 + i], 1e-4) << i;
  fs::rename(folder_ / "elsewhere", folder_ / "source");

  const Outcome weights = train("weights", from);
  ASSERT_EQ(weights.exit_code, 0) << weights.output;
  const std::vector<double> scratch = losses("longer");
  EXPECT_LT(losses("weights")[0], scratch[0] - 0.5);  // the same text as step 1 there, but trained weights
  EXPECT_EQ(CheckpointReader(folder_ / "weights/checkpoints/step-00000005").integer("optimizer_updates"), 5);

  const Outcome wrong = train("wrong", from + "model.hidden_size=64", 2);
  EXPECT_EQ(wrong.exit_code, 3) << wrong.output;
  expect_words(wrong, {"does not fit", "model.hidden_size: 32 -> 64", "and 18 other tensors",
                       "model/model.embed_tokens.weight is float32 [264, 32], expected float32 [264, 64]"});
  EXPECT_EQ(occurrences(wrong.output, "conclave: "), 1u) << wrong.output;
  const Outcome word = train("wrong", from + "'checkpoint.take=[weights]'");
  EXPECT_EQ(word.exit_code, 2) << word.output;
  expect_words(word, {"checkpoint.take", "'weights' came", "parameters, optimizer, data_position"});
}

}  // namespace
}  // namespace conclave
