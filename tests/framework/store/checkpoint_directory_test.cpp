// The directory of checkpoints: which is the newest good one, what killed processes leave, which are old, and
// directories that may not be looked into.
#include "framework/store/checkpoint_directory.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "framework/store/checkpoint_protocol.h"
#include "framework/store/durable_file.h"
#include "tests/framework/store/saved_checkpoint.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

TEST(CheckpointDirectory, AKilledWriterLeavesTheOlderOnes) {
  const ScratchDirectory scratch;
  save(scratch.path(), 5);
  EXPECT_EXIT(
      {
        begin_checkpoint(scratch.path(), 6);
        write_checkpoint_file(scratch.path(), 6, "rank-00000.h5", std::as_bytes(std::span(weights)));
        raise(SIGKILL);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-00000005", "step-00000006.partial"}));
  const FoundCheckpoint found = newest_checkpoint(scratch.path());
  EXPECT_EQ(found.path, scratch.path() / "step-00000005");
  EXPECT_TRUE(found.rejected.empty());
  remove_partial_checkpoints(scratch.path());
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-00000005"}));
}

TEST(CheckpointDirectory, TheNewestGoodOneIsFound) {
  const ScratchDirectory run;
  const fs::path checkpoints = run.path() / "checkpoints";
  EXPECT_FALSE(newest_checkpoint(checkpoints).path);
  expect_words(sentence_of(Fault::data, [&] { find_checkpoint(run.path()); }), {"no checkpoint"});
  for (const std::int64_t step : {9, 10, 200}) save(checkpoints, step);
  fs::create_directory(checkpoints / "step-notes");  // none of ours
  EXPECT_EQ(newest_checkpoint(checkpoints).path, checkpoints / "step-00000200");

  flip_byte(checkpoints / "step-00000200" / "index.h5", 1000);
  const FoundCheckpoint found = find_checkpoint(run.path());
  EXPECT_EQ(found.path, checkpoints / "step-00000010");
  ASSERT_EQ(found.rejected.size(), 1u);
  expect_words(found.rejected[0], {"step-00000200", "index.h5", "checksum"});
  EXPECT_EQ(find_checkpoint(checkpoints / "step-00000009").path, checkpoints / "step-00000009");
  sentence_of(Fault::data, [&] { find_checkpoint(checkpoints / "step-00000200"); });

  fs::rename(checkpoints / "step-00000010", checkpoints / "step-00000300");  // a name that lies
  EXPECT_EQ(newest_checkpoint(checkpoints).path, checkpoints / "step-00000009");
}

TEST(CheckpointDirectory, OldOnesGoAndDamagedOnesDoNotCount) {
  const ScratchDirectory scratch;
  for (const std::int64_t step : {1, 2, 3, 4, 5}) save(scratch.path(), step);
  remove_old_checkpoints(scratch.path(), 5, 0);
  EXPECT_EQ(names_in(scratch.path()).size(), 5u);
  fs::remove(scratch.path() / "step-00000004" / "manifest.json");
  remove_old_checkpoints(scratch.path(), 5, 2);
  EXPECT_EQ(names_in(scratch.path()),
            (std::vector<std::string>{"step-00000003", "step-00000004", "step-00000005"}));
}

TEST(CheckpointDirectory, WhatIsNewerThanTheNewestGoodOneNeitherCountsNorGoes) {
  const ScratchDirectory scratch;
  for (const std::int64_t step : {5, 7, 10}) save(scratch.path(), step);
  flip_byte(scratch.path() / "step-00000010" / "index.h5", 1000);  // its sizes are right
  remove_old_checkpoints(scratch.path(), 7, 1);
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-00000007", "step-00000010"}));
}

TEST(CheckpointDirectory, ARejectedOneStepsAsideAndGoesWhenEnoughNewerOnesStay) {
  const ScratchDirectory scratch;
  for (const std::int64_t step : {5, 10, 15}) save(scratch.path(), step);
  const std::vector<std::string> aside = {"step-00000010.rejected"};
  EXPECT_EQ(set_aside_checkpoints(scratch.path(), 5, 15), aside);
  EXPECT_EQ(list_checkpoints(scratch.path()).size(), 2u);
  remove_partial_checkpoints(scratch.path());
  save(scratch.path(), 10);
  EXPECT_EQ(set_aside_checkpoints(scratch.path(), 5, 15), aside) << "an earlier one is replaced";
  remove_old_checkpoints(scratch.path(), 15, 2);
  EXPECT_EQ(names_in(scratch.path()),
            (std::vector<std::string>{"step-00000005", "step-00000010.rejected", "step-00000015"}));
  save(scratch.path(), 20);
  remove_old_checkpoints(scratch.path(), 20, 2);
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-00000015", "step-00000020"}));
}

TEST(CheckpointDirectory, TwoRenamesReplaceWholeToo) {
  const ScratchDirectory scratch;
  const fs::path path = save(scratch.path(), 5, 1), other = save(scratch.path() / "other", 5, 42);
  replace_by_two_renames(other, path);
  EXPECT_EQ(CheckpointReader(path).read_all<float>("model/layers.0.weight")[0], 42);
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"other", "step-00000005"}));
  sentence_of(Fault::machine, [&] { replace_by_two_renames(scratch.path() / "none", path); });
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"other", "step-00000005"}));
}

TEST(CheckpointDirectory, AProcessKilledBetweenTwoRenamesLeavesTheOldOneToBeFound) {
  const ScratchDirectory scratch;
  const fs::path& checkpoints = scratch.path();
  save(checkpoints, 4);
  const fs::path path = save(checkpoints, 5, 1);
  fs::rename(path, replaced_path(path));  // the first of the two; then the process was gone
  fs::create_directory(partial_path(path));
  EXPECT_EQ(newest_checkpoint(checkpoints).path, replaced_path(path));
  EXPECT_EQ(CheckpointReader(*newest_checkpoint(checkpoints).path).step(), 5);
  EXPECT_EQ(find_checkpoint(path).path, replaced_path(path));
  remove_partial_checkpoints(checkpoints);
  EXPECT_EQ(names_in(checkpoints), (std::vector<std::string>{"step-00000004", "step-00000005"}));
  EXPECT_EQ(newest_checkpoint(checkpoints).path, path);

  fs::copy(path, replaced_path(path));  // killed after the second rename
  EXPECT_EQ(newest_checkpoint(checkpoints).path, path);
  remove_partial_checkpoints(checkpoints);
  EXPECT_EQ(names_in(checkpoints), (std::vector<std::string>{"step-00000004", "step-00000005"}));
}

/// The message of the action, and its exit code, where the user may not look into the directory. The
/// super-user may look anywhere, and becomes nobody.
template <class Action>
[[noreturn]] void without_permission(const fs::path& directory, const Action& action) {
  fs::permissions(directory, fs::perms::none);
  if (geteuid() == 0 && setuid(65534) != 0) _exit(99);
  try {
    action();
    _exit(0);
  } catch (const Error& error) {
    fputs(error.what(), stderr);
    _exit(error.exit_code());
  } catch (...) {
    _exit(98);
  }
}

TEST(CheckpointDirectory, ADirectoryWithoutPermissionIsASentence) {
  const ScratchDirectory scratch;
  const fs::path run = scratch.path() / "run", checkpoints = run / "checkpoints";
  save(checkpoints, 5);
  fs::permissions(scratch.path(), fs::perms::all);
  const auto denied = ::testing::ExitedWithCode(3);
  const char* words = "^Cannot l.*run/checkpoints.*: Permission denied.*ermissions";
  EXPECT_EXIT(without_permission(run, [&] { newest_checkpoint(checkpoints); }), denied, words);
  EXPECT_EXIT(without_permission(run, [&] { find_checkpoint(run); }), denied, "^Cannot look at .*run/");
  EXPECT_EXIT(without_permission(run, [&] { remove_partial_checkpoints(checkpoints); }), denied, words);
  EXPECT_EXIT(without_permission(run, [&] { CheckpointReader{checkpoints / "step-00000005"}; }), denied,
              words);
  fs::permissions(run, fs::perms::all);
  EXPECT_EXIT(without_permission(checkpoints, [&] { newest_checkpoint(checkpoints); }), denied,
              "^Cannot list the directory .*run/checkpoints: Permission denied");
  fs::permissions(checkpoints, fs::perms::all);

  const fs::path circle = scratch.path() / "circle";
  fs::create_symlink(circle, circle);
  expect_words(sentence_of(Fault::data, [&] { find_checkpoint(circle); }),
               {"Cannot look at " + circle.string() + ": Too many levels"});
  expect_words(sentence_of(Fault::data, [&] { newest_checkpoint(circle); }), {"Too many levels"});
}

}  // namespace
}  // namespace conclave
