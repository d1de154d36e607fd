// An expert history whose segments are missing, cut short or changed.
#include <cmath>

#include "framework/store/expert_history_writer.h"
#include "tests/framework/store/history_files.h"
#include "tests/framework/store/history_steps.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

TEST(HistoryDamage, AMissingOrChangedSegmentIsRefusedWhereHdf5SaysNothing) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 12, 0);
  }
  const fs::path segment = segments_directory(path) / segment_name(2);
  const std::string good = content(segment);
  flip_byte(segment, good.size() / 2);
  expect_words(sentence_of(Fault::data, [&] { read_expert_history(path); }),
               {"segment-00000002.h5", "checksum", "changed"});
  fs::resize_file(segment, good.size() - 8);
  expect_words(sentence_of(Fault::data, [&] { ExpertHistoryReader{path}; }),
               {"segment-00000002.h5", "bytes, expected"});
  fs::remove(segment);
  expect_words(sentence_of(Fault::data, [&] { read_expert_history(path); }),
               {"segment-00000002.h5", "cannot be read"});
  expect_words(sentence_of(Fault::data, [&] { ExpertHistoryWriter(path, options(12)); }),
               {"segment-00000002.h5", "cannot be read", "away"});
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto counts = plainly_read<std::int64_t>(file, "counts");
  EXPECT_EQ(counts[4 * 6], -1) << "a stranger sees that something is missing";
  EXPECT_TRUE(std::isnan(plainly_read<double>(file, "probability")[4 * 6]));
  EXPECT_EQ(counts[3 * 6], 40);
}

TEST(HistoryDamage, DamagedSegmentsAreNotMerged) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  std::vector<std::string> warnings;
  auto with_warnings = options();
  with_warnings.warn = [&](const std::string& sentence) { warnings.push_back(sentence); };
  {
    ExpertHistoryWriter writer(path, with_warnings);
    log_steps(writer, 1, 12, 0);
    const fs::path segment = segments_directory(path) / segment_name(2);
    const std::string good = content(segment);
    flip_byte(segment, good.size() / 2);
    log_steps(writer, 13, 60, 0);
    writer.flush();
    EXPECT_EQ(segments_of(path), 16u) << "and one with the last evaluation";
    ASSERT_EQ(warnings.size(), 1u);
    expect_words(warnings[0], {"segment-00000002.h5", "checksum", "Training goes on"});
    std::ofstream(segment, std::ios::binary) << good;
    log_steps(writer, 61, 64, 0);
  }
  ASSERT_EQ(warnings.size(), 2u);
  expect_words(warnings[1], {"written again", "no row is missing"});
  EXPECT_EQ(segments_of(path), 1u);
  expect_steps(read_expert_history(path), 64);
}

TEST(HistoryDamage, ADamagedHistoryIsMovedAsideAndANewOneBegins) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "run" / "experts.h5";
  const auto damages = {+[](const fs::path& segment) { fs::remove(segment); },
                        +[](const fs::path& segment) { fs::resize_file(segment, 100); },
                        +[](const fs::path& segment) { fs::remove_all(segment.parent_path()); },
                        +[](const fs::path& segment) {
                          std::ofstream(segment.parent_path().parent_path() / "experts.h5") << "no HDF5";
                        }};
  std::int64_t number = 0;
  for (const auto damage : damages) {
    {
      ExpertHistoryWriter writer(path, options());
      log_steps(writer, 1, 12, 0);
    }
    damage(segments_directory(path) / segment_name(2));
    const auto left = files_below(path.parent_path());
    std::vector<std::string> warnings;
    auto resumed = options(12);
    resumed.warn = [&](const std::string& sentence) { warnings.push_back(sentence); };
    {
      ExpertHistoryWriter writer(path, resumed);
      log_steps(writer, 13, 24, 0);
    }
    ASSERT_EQ(warnings.size(), 1u);
    const std::string aside = "experts-damaged-" + std::to_string(++number);
    expect_words(warnings[0], {"experts.h5", aside, "begins after step 12"});
    EXPECT_EQ(read_expert_history(path).step.front(), 13);
    EXPECT_EQ(read_expert_history(path).step.size(), 12u);
    const auto kept = files_below(path.parent_path() / aside);
    EXPECT_GT(kept.size(), 0u);
    for (const auto& [name, bytes] : kept) EXPECT_EQ(left.at(name), bytes) << name;
  }
}

}  // namespace
}  // namespace conclave
