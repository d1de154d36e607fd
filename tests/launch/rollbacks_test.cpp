// Rollbacks on 1 and more ranks: which older checkpoint a run goes back to when its numbers go wrong, also
// where checkpoints are damaged or hold ruined values.
#include <gtest/gtest.h>

#include <fstream>

#include "framework/store/checkpoint_directory.h"
#include "launch/train/checkpointing.h"
#include "launch/train/rollbacks.h"
#include "parallel/agreement.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

using test::make_trainer;
using test::mpi_world;
using test::tiny_recipe;

TEST(Rollbacks, ARunGoesOneCheckpointFurtherBackWhenTheNewestIsBadAtOnce) {
  Mesh mesh(mpi_world(), {});
  const auto trainer = make_trainer(tiny_recipe(), mesh);
  const ScratchDirectory scratch;
  const std::string folder = broadcast_text(*mpi_world(), scratch.path().string(), 0);
  Logger logger({.rank = 1, .terminal = -1});
  Checkpointing checkpointing(folder, {}, *mpi_world(), logger);
  std::vector<std::filesystem::path> saved;
  for (int step = 1; step <= 3; ++step) {
    trainer->step();
    checkpointing.save(*trainer);
    checkpointing.finish();
    saved.push_back(checkpointing.last_checkpoint());
  }
  TrainingRecipe recipe;
  recipe.skip_limit = 2;
  recipe.rollback_limit = 4;
  Rollbacks rollbacks(*mpi_world(), recipe);
  StepResult result;
  const auto skip_and_go_back = [&](std::int64_t step) {
    result.step = step;
    result.skipped = true;
    rollbacks.note(result, *trainer);
    EXPECT_FALSE(rollbacks.are_due());
    rollbacks.note(result, *trainer);
    EXPECT_TRUE(rollbacks.are_due());
    return rollbacks.go_back(*trainer, saved.back(), result);
  };
  const auto went_to = [&](const std::string& sentence, std::size_t which) {
    EXPECT_NE(sentence.find("(" + saved[which].string() + ")"), std::string::npos) << sentence;
  };
  went_to(skip_and_go_back(5), 2);
  EXPECT_EQ(trainer->steps_done(), 5);
  went_to(skip_and_go_back(7), 1);  // at once
  result.skipped = false;
  rollbacks.note(result, *trainer);
  went_to(skip_and_go_back(10), 1);  // the one before was good for a step
  went_to(skip_and_go_back(12), 0);
  try {
    skip_and_go_back(14);
    ADD_FAILURE() << "a fifth time came";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::numeric);
    EXPECT_NE(std::string(error.what()).find("has gone back 4 times already"), std::string::npos)
        << error.what();
  }
  agree(*mpi_world(), [] {});
}

/// Three checkpoints of a run, and its steps that go wrong.
class DamagedCheckpoints : public testing::Test {
 protected:
  DamagedCheckpoints()
      : mesh_(mpi_world(), {}),
        trainer_(make_trainer(tiny_recipe(), mesh_)),
        folder_(broadcast_text(*mpi_world(), scratch_.path().string(), 0)),
        rollbacks_(*mpi_world(), recipe()) {
    Logger logger({.rank = 1, .terminal = -1});
    Checkpointing checkpointing(folder_, {}, *mpi_world(), logger);
    for (int step = 1; step <= 3; ++step) {
      trainer_->step();
      checkpointing.save(*trainer_);
      checkpointing.finish();
      saved_.push_back(checkpointing.last_checkpoint());
    }
  }
  ~DamagedCheckpoints() override {
    agree(*mpi_world(), [] {});  // nobody removes what others read
  }
  static TrainingRecipe recipe() {
    TrainingRecipe recipe;
    recipe.skip_limit = 1;
    recipe.rollback_limit = 4;
    return recipe;
  }
  static void damage(const fs::path& checkpoint) {
    if (mpi_world()->rank() == 0) {
      std::fstream file(checkpoint / "index.h5", std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(1000);
      const int byte = file.get();
      file.seekp(1000);
      file.put(static_cast<char>(byte ^ 1));
    }
    mpi_world()->barrier();
  }
  std::string go_back(std::int64_t step) {
    StepResult result;
    result.step = step;
    result.skipped = true;
    rollbacks_.note(result, *trainer_);
    return rollbacks_.go_back(*trainer_, saved_.back(), result);
  }
  void expect_went_to(const std::string& sentence, std::size_t which) const {
    EXPECT_NE(sentence.find("(" + saved_[which].string() + ")"), std::string::npos) << sentence;
  }

  Mesh mesh_;
  std::unique_ptr<Trainer> trainer_;
  const ScratchDirectory scratch_;
  std::string folder_;
  Rollbacks rollbacks_;
  std::vector<fs::path> saved_;
};

TEST_F(DamagedCheckpoints, TheOneBeforeIsTakenAndTheDamagedOneSetAside) {
  damage(saved_[2]);
  const std::string sentence = go_back(5);
  expect_went_to(sentence, 1);
  EXPECT_NE(sentence.find("Newer ones were left out: "), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("step-00000003"), std::string::npos) << sentence;
  EXPECT_EQ(trainer_->steps_done(), 5);
  const std::vector<fs::path> left = list_checkpoints(folder_);
  EXPECT_EQ(left, (std::vector<fs::path>{saved_[1], saved_[0]}));
  EXPECT_TRUE(fs::exists(fs::path(folder_) / "step-00000003.rejected"));
}

TEST_F(DamagedCheckpoints, SoItIsOnTheWayFurtherBack) {
  expect_went_to(go_back(5), 2);
  damage(saved_[1]);
  expect_went_to(go_back(7), 0);  // the newest was bad at once
  EXPECT_EQ(list_checkpoints(folder_), (std::vector<fs::path>{saved_[2], saved_[0]}));
}

TEST_F(DamagedCheckpoints, WithoutAGoodOneItIsAFaultOfTheData) {
  for (const fs::path& checkpoint : saved_) damage(checkpoint);
  try {
    go_back(5);
    ADD_FAILURE() << "a damaged checkpoint was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_EQ(error.reach(), Reach::all_ranks);
    for (const fs::path& checkpoint : saved_)
      EXPECT_NE(std::string(error.what()).find(checkpoint.filename().string()), std::string::npos)
          << error.what();
  }
}

}  // namespace
}  // namespace conclave
