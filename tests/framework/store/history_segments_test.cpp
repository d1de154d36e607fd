// experts.h5 as an index over segments: what strangers read through HDF5, what a resumed run keeps of it, and
// what readers of Conclave refuse.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <map>

#include "framework/store/expert_history.h"
#include "framework/store/expert_history_writer.h"
#include "framework/store/hdf5_file.h"
#include "tests/framework/store/history_files.h"
#include "tests/framework/store/history_steps.h"
#include "tests/framework/store/old_history.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

/// HDF5 alone finds in experts.h5 the same as Conclave's reader.
void expect_same_for_strangers(const fs::path& path) {
  const ExpertHistory history = read_expert_history(path);
  const Hdf5File file(path, Hdf5File::Mode::read);
  EXPECT_EQ(plainly_read<std::int64_t>(file, "step"), history.step);
  EXPECT_EQ(plainly_read<std::int64_t>(file, "counts"), history.counts);
  EXPECT_EQ(plainly_read<double>(file, "probability"), history.probability);
  EXPECT_EQ(plainly_read<std::int64_t>(file, "load_per_expert_rank"), history.load_per_expert_rank);
  EXPECT_EQ(plainly_read<double>(file, "layer_balance_loss"), history.layer_balance_loss);
  EXPECT_EQ(plainly_read<double>(file, "layer_load_violation"), history.layer_load_violation);
  EXPECT_EQ(plainly_read<std::int64_t>(file, "evaluation/step"), history.evaluation_step);
  EXPECT_EQ(plainly_read<std::int64_t>(file, "evaluation/counts"), history.evaluation_counts);
  const auto score_sum = plainly_read<double>(file, "evaluation/score_sum");
  ASSERT_EQ(score_sum.size(), history.evaluation_score_sum.size());
  for (std::size_t i = 0; i < score_sum.size(); ++i)
    EXPECT_TRUE(score_sum[i] == history.evaluation_score_sum[i] ||
                (std::isnan(score_sum[i]) && std::isnan(history.evaluation_score_sum[i])));
}

TEST(HistorySegments, AreMergedTenByTenAndReadAsOneFile) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "run" / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options(-1, 2));
    for (std::int64_t first = 1; first <= 229; first += 10) {
      log_steps(writer, first, first + 9, 0);
      expect_steps(read_expert_history(path), first + 9);
    }
  }
  // 115 segments of two steps, and the last evaluation: 1 of a hundred, 1 of ten, 6 of one.
  EXPECT_EQ(segments_of(path), 8u);
  expect_steps(read_expert_history(path), 230);
  expect_same_for_strangers(path);
  const ExpertHistoryReader reader(path);
  const ExpertHistory history = read_expert_history(path);
  EXPECT_EQ(reader.counts(190, 33),
            std::vector<std::int64_t>(history.counts.begin() + 190 * 6, history.counts.begin() + 223 * 6));
}

TEST(HistorySegments, MoveAndAreCopiedWithTheDirectory) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "run" / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 30, 0);
  }
  fs::copy(path.parent_path(), scratch.path() / "copy", fs::copy_options::recursive);
  fs::rename(path.parent_path(), scratch.path() / "moved");
  for (const char* place : {"copy", "moved"}) {
    expect_steps(read_expert_history(scratch.path() / place / "experts.h5"), 30);
    expect_same_for_strangers(scratch.path() / place / "experts.h5");
  }
}

TEST(HistorySegments, EqualRunsLeaveEqualFiles) {
  const ScratchDirectory scratch;
  for (const char* run : {"a", "b"}) {
    ExpertHistoryWriter writer(scratch.path() / run / "experts.h5", options());
    log_steps(writer, 1, 45, 0);
    writer.flush();
    ASSERT_EQ(std::system("sleep 1.1"), 0);  // HDF5's times are whole seconds
  }
  const auto files = files_below(scratch.path() / "a");
  EXPECT_EQ(files.size(), 1u + segments_of(scratch.path() / "a" / "experts.h5"));
  EXPECT_TRUE(files == files_below(scratch.path() / "b"));
}

TEST(HistorySegments, OfLaterStepsAreDroppedAndAPartOfOneIsKept) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  for (const std::int64_t step : {std::int64_t{0}, std::int64_t{21}, std::int64_t{40}, std::int64_t{47}}) {
    {
      ExpertHistoryWriter writer(path, options());
      log_steps(writer, 1, 47, 0);
    }
    {
      ExpertHistoryWriter writer(path, options(step));
      ASSERT_EQ(read_expert_history(path).step.size(), static_cast<std::size_t>(step));
      log_steps(writer, step + 1, 60, 1);
    }
    expect_steps(read_expert_history(path), 60);
    expect_same_for_strangers(path);
    EXPECT_EQ(read_expert_history(path).counts[static_cast<std::size_t>(step) * 6] / 1000000, 1);
  }
}

TEST(HistorySegments, AFileOfTheVersionBeforeIsReadAndGoneOnWith) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 25, 0);
  }
  const ExpertHistory before = read_expert_history(path);
  fs::remove_all(segments_directory(path));
  write_old_history(path, before, OldVersion::last);
  const ExpertHistory old = read_expert_history(path);
  EXPECT_EQ(old.counts, before.counts);
  EXPECT_EQ(old.evaluation_entropy, before.evaluation_entropy);
  EXPECT_EQ(old.layer_balance_loss, before.layer_balance_loss);
  EXPECT_EQ(ExpertHistoryReader(path).counts(3, 4).size(), 24u);
  {
    ExpertHistoryWriter writer(path, options(21));
    log_steps(writer, 22, 40, 1);
  }
  expect_steps(read_expert_history(path), 40);
  EXPECT_EQ(read_expert_history(path).evaluation_step,
            (std::vector<std::int64_t>{5, 10, 15, 20, 25, 30, 35, 40}));
  expect_same_for_strangers(path);
}

TEST(HistorySegments, NoneIsLargerThanFitsIntoMemory) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  auto small = options(-1, 20);
  small.largest_segment = 12'000;
  {
    ExpertHistoryWriter writer(path, small);
    log_steps(writer, 1, 600, 0);
  }
  EXPECT_GT(segments_of(path), 6u);
  const ExpertHistory before = read_expert_history(path);
  write_old_history(path, before, OldVersion::last);
  small.resume_step = 590;
  {
    ExpertHistoryWriter writer(path, small);
    log_steps(writer, 591, 600, 0);
  }
  EXPECT_GT(segments_of(path), 6u);
  for (const auto& entry : fs::directory_iterator(segments_directory(path)))
    EXPECT_LT(entry.file_size(), 24'000u);
  const ExpertHistory after = read_expert_history(path);
  EXPECT_EQ(after.counts, before.counts);
  EXPECT_EQ(after.evaluation_step, before.evaluation_step);
  EXPECT_EQ(after.evaluation_counts, before.evaluation_counts);
  expect_same_for_strangers(path);
}

TEST(HistorySegments, ADomainThatIsAddedRemovedOrMovedBeginsRowsOfItsOwn) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  const auto with = [](std::vector<std::string> domains, std::int64_t resume_step) {
    auto result = options(resume_step, 2);
    result.domains = std::move(domains);
    return result;
  };
  const auto evaluate = [](ExpertHistoryWriter& writer, std::int64_t step,
                           const std::vector<std::int64_t>& of_domains) {
    std::vector<std::int64_t> counts;
    std::vector<double> scores;
    for (const std::int64_t count : of_domains) {
      counts.insert(counts.end(), 6, count);
      scores.insert(scores.end(), 2, static_cast<double>(count));
    }
    writer.add_step(step, std::vector<std::int64_t>(6, step), std::vector<double>(6), {1, 2});
    writer.add_evaluation(step, counts, scores, scores);
  };
  {
    ExpertHistoryWriter writer(path, with({"english", "python"}, -1));
    evaluate(writer, 1, {11, 12});
  }
  {
    ExpertHistoryWriter writer(path, with({"german", "python", "english"}, 1));
    evaluate(writer, 2, {23, 22, 21});
  }
  {
    ExpertHistoryWriter writer(path, with({"python", "english"}, 2));
    evaluate(writer, 3, {32, 31});
  }
  const auto of = [&](const std::string& domain) {
    const ExpertHistory history = read_expert_history(path);
    std::vector<std::int64_t> values;
    const std::size_t domains = history.domains.size();
    const auto place = static_cast<std::size_t>(
        std::find(history.domains.begin(), history.domains.end(), domain) - history.domains.begin());
    for (std::size_t row = 0; row < history.evaluation_step.size(); ++row) {
      const std::int64_t count = history.evaluation_counts.at((row * domains + place) * 6 + 5);
      const double score = history.evaluation_score_sum.at((row * domains + place) * 2 + 1);
      EXPECT_TRUE(count < 0 ? std::isnan(score) : score == static_cast<double>(count));
      values.push_back(count);
    }
    return values;
  };
  const auto expect_all = [&](std::int64_t steps) {
    EXPECT_EQ(read_expert_history(path).domains, (std::vector<std::string>{"python", "english", "german"}));
    const auto first = [&](std::vector<std::int64_t> values) {
      values.resize(static_cast<std::size_t>(steps), -1);
      return values;
    };
    auto english = of("english"), python = of("python"), german = of("german");
    english.resize(3);
    python.resize(3);
    german.resize(3);
    EXPECT_EQ(english, (std::vector<std::int64_t>{11, 21, 31}));
    EXPECT_EQ(python, (std::vector<std::int64_t>{12, 22, 32}));
    EXPECT_EQ(german, (std::vector<std::int64_t>{-1, 23, -1}));
    EXPECT_EQ(first(of("german")).size(), static_cast<std::size_t>(steps));
    expect_same_for_strangers(path);
  };
  expect_all(3);
  {  // merged with others, they are the same
    ExpertHistoryWriter writer(path, with({"python", "english"}, 3));
    for (std::int64_t step = 4; step <= 12; ++step) {
      evaluate(writer, step, {10 * step + 2, 10 * step + 1});
      writer.flush();
    }
  }
  EXPECT_LT(segments_of(path), 5u);
  expect_all(12);
}

TEST(HistorySegments, ADomainMayBeThereTwice) {
  EXPECT_EQ(places_of_domains({"a", "b", "a"}, {"a", "a", "b"}), (std::vector<std::int64_t>{0, 2, 1}));
  EXPECT_EQ(places_of_domains({"a", "a"}, {"a"}), (std::vector<std::int64_t>{0, -1}));
  EXPECT_EQ(joined_domains({"a"}, {"b", "a", "a"}), (std::vector<std::string>{"a", "b", "a"}));
}

TEST(HistorySegments, AReaderKeepsWhatItHasOpened) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  ExpertHistoryWriter writer(path, options());
  log_steps(writer, 1, 36, 0);
  const ExpertHistoryReader reader(path);
  log_steps(writer, 37, 200, 0);
  EXPECT_FALSE(fs::exists(segments_directory(path) / segment_name(1)));
  EXPECT_EQ(reader.overview().step.size(), 36u);
  const std::vector<std::int64_t> counts = reader.counts(0, 36);
  for (std::size_t row = 0; row < 36; ++row)
    EXPECT_EQ(counts[row * 6], static_cast<std::int64_t>(row + 1) * 10);
}

TEST(HistorySegments, ForeignFilesBesideThemStay) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  fs::create_directories(segments_directory(path));
  std::ofstream(segments_directory(path) / "notes.txt") << "mine";
  std::ofstream(segments_directory(path) / segment_name(7)) << "of a killed run";
  std::ofstream(segments_directory(path) / (segment_name(8) + ".partial")) << "of a killed run";
  { ExpertHistoryWriter writer(path, options()); }
  EXPECT_EQ(segments_of(path), 1u);
  EXPECT_TRUE(fs::exists(segments_directory(path) / "notes.txt"));
}

TEST(HistorySegments, StayWhereOnlyTheIndexWasMovedAway) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5", away = scratch.path() / "away.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 12, 0);
  }
  fs::rename(path, away);
  {
    ExpertHistoryWriter writer(path, options(12));
    log_steps(writer, 13, 16, 0);
  }
  EXPECT_EQ(read_expert_history(path).step.front(), 13);
  fs::rename(away, path);
  expect_steps(read_expert_history(path), 12);
}

}  // namespace
}  // namespace conclave
