// experts.h5: rows come back, a killed run leaves a readable file, a resumed run has no row twice.
#include "framework/store/expert_history.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>

#include "framework/store/expert_history_writer.h"
#include "tests/framework/store/history_steps.h"
#include "tests/framework/store/old_history.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

TEST(ExpertHistory, ComesBack) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "run" / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 10, 0);
    writer.flush();
  }
  const ExpertHistory history = read_expert_history(path);
  EXPECT_EQ(history.layers, 2);
  EXPECT_EQ(history.experts, 3);
  EXPECT_EQ(history.domains, (std::vector<std::string>{"english", "python"}));
  EXPECT_EQ(history.step, (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  ASSERT_EQ(history.counts.size(), 60u);
  ASSERT_EQ(history.probability.size(), 60u);
  for (std::size_t row = 0; row < 10; ++row)
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(history.counts[row * 6 + i], static_cast<std::int64_t>((row + 1) * 10 + i));
      EXPECT_EQ(history.probability[row * 6 + i],
                0.125 * static_cast<double>(row + 1) + static_cast<double>(i));
    }
  EXPECT_EQ(history.evaluation_step, (std::vector<std::int64_t>{5, 10}));
  ASSERT_EQ(history.evaluation_counts.size(), 24u);
  EXPECT_EQ(history.evaluation_counts[11], 5);
  EXPECT_EQ(history.evaluation_counts[12], 10);
}

TEST(ExpertHistory, HasTheLoadOfEveryExpertRankAndLayer) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, {.layers = 2, .experts = 4, .expert_ranks = 2, .domains = {}});
    writer.add_step(1, {1, 2, 3, 4, 10, 0, 0, 0}, std::vector<double>(8, 0.25), {1.5, 2.5});
    writer.add_step(2, {5, 6, 7, 8, 0, 0, 0, 0}, std::vector<double>(8, 0.25), {3.5, 4.5});
  }
  const ExpertHistory history = read_expert_history(path);
  EXPECT_EQ(history.expert_ranks, 2);
  EXPECT_EQ(history.load_per_expert_rank, (std::vector<std::int64_t>{3, 7, 10, 0, 11, 15, 0, 0}));
  EXPECT_EQ(history.layer_balance_loss, (std::vector<double>{1.5, 2.5, 3.5, 4.5}));
  ASSERT_EQ(history.layer_load_violation.size(), 4u);
  EXPECT_NEAR(history.layer_load_violation[0], 0.6, 1e-12);
  EXPECT_NEAR(history.layer_load_violation[1], 3.0, 1e-12);
  EXPECT_NEAR(history.layer_load_violation[2], 16.0 / 13 - 1, 1e-12);
  EXPECT_EQ(history.layer_load_violation[3], 0);
}

TEST(ExpertHistory, ARunThatGoesOnWithOtherRanksHasTheirLoads) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 12, 0);
  }
  EXPECT_EQ(read_expert_history(path).load_per_expert_rank.size(), 24u);
  {
    ExpertHistoryWriter writer(path, options(7, 4, 3));
    EXPECT_EQ(read_expert_history(path).step.size(), 7u);
    log_steps(writer, 8, 15, 1);
  }
  const ExpertHistory history = read_expert_history(path);
  EXPECT_EQ(history.expert_ranks, 3);
  ASSERT_EQ(history.step.size(), 15u);
  EXPECT_EQ(history.load_per_expert_rank, history.counts) << "each rank has one expert";
  ASSERT_EQ(history.layer_balance_loss.size(), 30u);
  for (std::size_t row = 0; row < 15; ++row) {
    EXPECT_EQ(history.layer_balance_loss[row * 2], 0.5 * static_cast<double>(row + 1));
    EXPECT_EQ(history.layer_balance_loss[row * 2 + 1], row < 7 ? 0 : 1);
    EXPECT_EQ(history.probability[row * 6], 0.125 * static_cast<double>(row + 1));
  }
  EXPECT_EQ(history.evaluation_step, (std::vector<std::int64_t>{5, 10, 15}));
  EXPECT_EQ(history.evaluation_counts[0], 5);
  EXPECT_EQ(history.evaluation_counts[12], 110);
  EXPECT_EQ(history.evaluation_score_sum[4], 2.5);
  EXPECT_EQ(history.evaluation_entropy[4], 1.5);
}

TEST(ExpertHistory, AFileWithoutLoadsIsGoneOnWith) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 5, 0);
  }
  {
    const ExpertHistory whole = read_expert_history(path);
    write_old_history(path, whole, OldVersion::without_loads);
    EXPECT_EQ(ExpertHistoryReader(path).overview().evaluation_step.size(), 1u);
    EXPECT_TRUE(ExpertHistoryReader(path).overview().evaluation_score_sum.empty());
  }
  {
    ExpertHistoryWriter writer(path, options(5));
    log_steps(writer, 6, 7, 0);
    writer.add_evaluation(7, std::vector<std::int64_t>(12, 8), std::vector<double>(4, 0.75),
                          std::vector<double>(4, 0.25));
  }
  const ExpertHistory history = read_expert_history(path);
  ASSERT_EQ(history.step.size(), 7u);
  ASSERT_EQ(history.load_per_expert_rank.size(), 14u);
  EXPECT_EQ(history.load_per_expert_rank[0], 10 + 11 + 12);
  EXPECT_TRUE(std::isnan(history.layer_balance_loss[0])) << "nobody knows it";
  EXPECT_EQ(history.layer_balance_loss[12], 3.5);
  EXPECT_EQ(history.evaluation_step, (std::vector<std::int64_t>{5, 7}));
  EXPECT_EQ(history.evaluation_counts[0], 5);
  ASSERT_EQ(history.evaluation_score_sum.size(), 8u);
  EXPECT_TRUE(std::isnan(history.evaluation_score_sum[0])) << "nobody knows it";
  EXPECT_TRUE(std::isnan(history.evaluation_entropy[3]));
  EXPECT_EQ(history.evaluation_score_sum[4], 0.75);
  EXPECT_EQ(history.evaluation_entropy[7], 0.25);
}

TEST(ExpertHistory, AKilledRunLeavesAReadableFile) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  EXPECT_EXIT(
      {
        ExpertHistoryWriter writer(path, options());
        log_steps(writer, 1, 11, 0);
        raise(SIGKILL);
      },
      ::testing::KilledBySignal(SIGKILL), "");
  const ExpertHistory history = read_expert_history(path);
  EXPECT_EQ(history.step, (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(history.evaluation_step, (std::vector<std::int64_t>{5}));
}

TEST(ExpertHistory, AResumedRunHasNoRowTwice) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 12, 0);
  }
  {
    ExpertHistoryWriter writer(path, options(7));
    EXPECT_EQ(read_expert_history(path).step.size(), 7u);
    log_steps(writer, 8, 15, 1);
  }
  const ExpertHistory history = read_expert_history(path);
  ASSERT_EQ(history.step.size(), 15u);
  for (std::size_t row = 0; row < 15; ++row) {
    EXPECT_EQ(history.step[row], static_cast<std::int64_t>(row + 1));
    EXPECT_EQ(history.counts[row * 6] >= 1000000, row >= 7) << row;
  }
  EXPECT_EQ(history.evaluation_step, (std::vector<std::int64_t>{5, 10, 15}));
  EXPECT_EQ(history.evaluation_counts[0], 5);
  EXPECT_EQ(history.evaluation_counts[12], 110);
}

TEST(ExpertHistory, BeginningAnewForgetsTheOldFile) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  for (int run = 0; run < 2; ++run) {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 3, run);
  }
  const ExpertHistory history = read_expert_history(path);
  EXPECT_EQ(history.step, (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_GE(history.counts[0], 1000000);
}

TEST(ExpertHistory, BeginningAnewRemovesTheOldFileAtOnce) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, options());
    log_steps(writer, 1, 3, 0);
  }
  ExpertHistoryWriter(path, options(3));
  EXPECT_TRUE(fs::exists(path));
  ExpertHistoryWriter(path, options());
  EXPECT_FALSE(fs::exists(path));
  fs::create_directories(path / "in the way");
  expect_words(sentence_of(Fault::machine, [&] { ExpertHistoryWriter(path, options()); }),
               {"Cannot remove the expert history", "experts.h5"});
}

TEST(ExpertHistory, WithoutDomainsOrWithAnotherLayout) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  {
    ExpertHistoryWriter writer(path, {.layers = 1, .experts = 2, .domains = {}});
    writer.add_step(1, {3, 4}, {0.5, 0.5}, {1.0});
    writer.add_evaluation(1, {}, {}, {});
    sentence_of(Fault::internal, [&] { writer.add_step(2, {3}, {0.5}, {1.0}); });
    sentence_of(Fault::internal, [&] { writer.add_step(2, {3, 4}, {0.5, 0.5}, {}); });
    sentence_of(Fault::internal, [&] { writer.add_evaluation(2, {3}, {}, {}); });
    sentence_of(Fault::internal, [&] { writer.add_evaluation(2, {}, {0.5}, {}); });
  }
  EXPECT_TRUE(read_expert_history(path).domains.empty());
  EXPECT_EQ(read_expert_history(path).evaluation_step.size(), 1u);
  expect_words(sentence_of(Fault::data, [&] { ExpertHistoryWriter(path, options(1)); }),
               {"experts.h5", "1 layers", "2 experts"});
}

TEST(ExpertHistory, AnUnwritablePlaceIsASentence) {
  const ScratchDirectory scratch;
  std::ofstream(scratch.path() / "file") << "in the way";
  sentence_of(Fault::machine,
              [&] { ExpertHistoryWriter(scratch.path() / "file" / "experts.h5", options()); });
}

}  // namespace
}  // namespace conclave
