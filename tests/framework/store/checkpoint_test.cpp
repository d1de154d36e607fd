// Checkpoints: whole or not at all. All that was written comes back; any byte changed, any file shortened or
// missing is found before it is used; a run that is killed or meets a full disk leaves the older checkpoints
// as they were.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/manifest.h"
#include "tests/framework/store/saved_checkpoint.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

TEST(Checkpoint, ComesBack) {
  const ScratchDirectory scratch;
  const fs::path path = save(scratch.path() / "new" / "checkpoints", 100);
  EXPECT_EQ(path, scratch.path() / "new" / "checkpoints" / "step-00000100");
  EXPECT_EQ(names_in(path), (std::vector<std::string>{"index.h5", "manifest.json", "rank-00000.h5"}));
  EXPECT_EQ(names_in(path.parent_path()), (std::vector<std::string>{"step-00000100"}));

  const CheckpointReader reader(path);
  EXPECT_EQ(reader.step(), 100);
  EXPECT_EQ(reader.integer("tokens"), 123);
  EXPECT_EQ(reader.real("best"), 2.5);
  EXPECT_EQ(reader.text("recipe"), "name: test\nmodel: {}\n");
  EXPECT_TRUE(reader.has("software_version"));
  EXPECT_FALSE(reader.has("other"));
  EXPECT_EQ(reader.names(), (std::vector<std::string>{"model/layers.0.weight",
                                                      "optimizer/first/layers.0.weight", "state/counts"}));
  EXPECT_EQ(reader.names("model"), (std::vector<std::string>{"model/layers.0.weight"}));
  EXPECT_TRUE(reader.names("nothing").empty());
  EXPECT_EQ(reader.read_all<float>("model/layers.0.weight"), weights);
  EXPECT_EQ(reader.read_all<std::int64_t>("state/counts"), (std::vector<std::int64_t>{100, 7}));
}

TEST(Checkpoint, AnotherModelIsRefused) {
  const ScratchDirectory scratch;
  const CheckpointReader reader(save(scratch.path(), 1));
  std::vector<float> found(6);
  expect_words(sentence_of(Fault::data,
                           [&] {
                             reader.read("model/layers.0.weight", {3, 2}, found.data());
                           }),
               {"model/layers.0.weight", "[2, 3]", "[3, 2]"});
  expect_words(sentence_of(Fault::data, [&] { reader.read("model/layers.1.weight", {6}, found.data()); }),
               {"no tensor model/layers.1.weight"});
}

TEST(Checkpoint, AnyChangedByteIsFound) {
  const ScratchDirectory scratch;
  const fs::path path = save(scratch.path(), 1);
  for (const char* file : {"index.h5", "manifest.json", "rank-00000.h5"}) {
    const std::uintmax_t bytes = fs::file_size(path / file);
    ASSERT_GT(bytes, 100u);
    for (std::uintmax_t offset = 0; offset < bytes; ++offset) {
      flip_byte(path / file, offset);
      EXPECT_THROW(CheckpointReader{path}, Error) << file << " byte " << offset;
      flip_byte(path / file, offset);
    }
  }
  EXPECT_EQ(CheckpointReader(path).step(), 1);
}

TEST(Checkpoint, ShortenedOrMissingFilesAreFound) {
  const ScratchDirectory scratch;
  const fs::path path = save(scratch.path(), 1);
  for (const char* file : {"index.h5", "manifest.json", "rank-00000.h5"}) {
    const fs::path whole = scratch.path() / file;
    fs::copy_file(path / file, whole);
    for (const std::uintmax_t bytes :
         {fs::file_size(whole) - 1, fs::file_size(whole) / 2, std::uintmax_t{0}}) {
      fs::resize_file(path / file, bytes);
      sentence_of(Fault::data, [&] { CheckpointReader{path}; });
    }
    fs::remove(path / file);
    expect_words(sentence_of(Fault::data, [&] { CheckpointReader{path}; }), {file});
    fs::copy_file(whole, path / file);
  }
  EXPECT_EQ(CheckpointReader(path).step(), 1);
  expect_words(sentence_of(Fault::data, [&] { CheckpointReader(scratch.path() / "step-00000009"); }),
               {"step-00000009"});
}

TEST(Checkpoint, WithoutCommitNothingIsThere) {
  const ScratchDirectory scratch;
  CheckpointWriter writer(scratch.path(), 5);
  writer.add("model/w", {6}, weights.data());
  EXPECT_TRUE(names_in(scratch.path()).empty());
}

TEST(Checkpoint, TheSameStepIsReplacedWhole) {
  const ScratchDirectory scratch;
  save(scratch.path(), 5, 1);
  const fs::path path = save(scratch.path(), 5, 42);
  EXPECT_EQ(CheckpointReader(path).read_all<float>("model/layers.0.weight")[0], 42);
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-00000005"}));
}

/// A limit on the size of files fails writes as a full disk does. Leaves through all destructors and atexit
/// handlers.
[[noreturn]] void save_on_a_full_disk(const fs::path& checkpoints, rlim_t bytes) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  limit.rlim_cur = limit.rlim_max = bytes;
  setrlimit(RLIMIT_FSIZE, &limit);
  int code = 0;
  try {
    const std::vector<float> big(100000, 1.0f);
    CheckpointWriter writer(checkpoints, 6);
    writer.add("model/w", {100000}, big.data());
    writer.commit();
  } catch (const Error& error) {
    fputs(error.what(), stderr);
    code = error.exit_code();
  }
  exit(code);
}

TEST(Checkpoint, AFullDiskIsASentenceAndNotACrash) {
  const ScratchDirectory scratch;
  save(scratch.path(), 5);
  for (const rlim_t bytes : {1000, 16384, 399999})
    EXPECT_EXIT(save_on_a_full_disk(scratch.path(), bytes), ::testing::ExitedWithCode(5),
                "rank-00000.h5.*File too large");
  EXPECT_EQ(names_in(scratch.path()), (std::vector<std::string>{"step-00000005"}));
}

TEST(Checkpoint, AnUnwritablePlaceIsASentence) {
  const ScratchDirectory scratch;
  std::ofstream(scratch.path() / "file") << "in the way";
  expect_words(sentence_of(Fault::machine, [&] { save(scratch.path() / "file" / "checkpoints", 1); }),
               {"Cannot create the directory", "file/checkpoints"});
  expect_words(
      sentence_of(Fault::machine, [&] { write_text_durably(scratch.path() / "none" / "a", "text"); }),
      {"Cannot create", "none/a", "No such file"});
  expect_words(sentence_of(Fault::machine, [&] { check_free_space(scratch.path(), std::size_t{1} << 60); }),
               {"free bytes"});
}

TEST(Checkpoint, SentencesNamePathsWithoutQuotes) {
  const ScratchDirectory scratch;
  const fs::path path = save(scratch.path(), 5), missing = scratch.path() / "none";
  const CheckpointReader reader(path);
  fs::remove(path / "manifest.json");
  const std::string sentences =
      sentence_of(Fault::data, [&] { find_checkpoint(missing); }) +
      sentence_of(Fault::data, [&] { CheckpointReader{path}; }) +
      sentence_of(Fault::data, [&] { reader.read_all<float>("none"); }) +
      sentence_of(Fault::data, [&] { Hdf5File(missing, Hdf5File::Mode::read); }) +
      sentence_of(Fault::machine, [&] { check_free_space(scratch.path(), std::size_t{1} << 60); }) +
      sentence_of(Fault::machine, [&] { sync_to_disk(missing); });
  EXPECT_EQ(sentences.find('"'), std::string::npos) << sentences;
}

}  // namespace
}  // namespace conclave
