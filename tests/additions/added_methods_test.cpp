// A router and an objective are one new file each, and a name in one or two existing ones. With no other
// change they train on every layout, are saved, resume bit-equal, and are reported and planned.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "framework/store/checkpoint_file.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class AddedMethod : public Command {
 protected:
  static fs::path checkpoint(const std::string& output, int step) {
    return folder_ / output / "checkpoints" / ("step-0000000" + std::to_string(step));
  }
  static std::vector<double> numbers(const std::string& output, const char* key) {
    std::vector<double> all;
    for (const Json& line : metrics(output))
      if (line.contains("grad_norm") && line.contains(key)) all.push_back(line[key].get<double>());
    return all;
  }
  static void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
    ASSERT_EQ(a.size(), b.size());
    ASSERT_FALSE(a.empty());
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-9 * (1 + std::abs(a[i]))) << i;
  }
  static void expect_resumes(const std::string& overrides, int ranks) {
    const std::string whole = "whole" + std::to_string(ranks), parts = "parts" + std::to_string(ranks);
    Outcome outcome = train(whole, overrides, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    fs::copy(folder_ / whole, folder_ / parts, fs::copy_options::recursive);
    fs::remove_all(checkpoint(parts, 8));
    outcome = train(parts, overrides, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("Resuming after step 4"), std::string::npos) << outcome.output;
    EXPECT_EQ(metrics(whole), metrics(parts));
  }
  static std::vector<std::string> files_of(const fs::path& addition) {
    std::vector<std::string> files;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(addition))
      if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), addition).string());
    std::sort(files.begin(), files.end());
    return files;
  }
  static std::vector<std::string> touched_by(const fs::path& addition) {
    std::ifstream patch(addition / "existing.patch");
    std::vector<std::string> touched;
    for (std::string line; std::getline(patch, line);)
      if (line.starts_with("+++ ")) touched.push_back(line.substr(6));
    return touched;
  }
};

const std::string steps = "training.steps=8 training.precision=fp64 checkpoint.interval=4 ";
const std::string of_sequences = "'model.moe.balance=[{scope: sequence, coefficient: 0.01}]' ";

#if defined(CONCLAVE_ADDED_ROUTER)

const std::string bottleneck = steps + "model.moe.bottleneck.width=4 ";

TEST_F(AddedMethod, ARouterTouchesTwoExistingFiles) {
  EXPECT_EQ(touched_by(CONCLAVE_ADDITION),
            (std::vector<std::string>{"layers/moe/method_keys.cpp", "layers/moe/methods.cpp"}));
  EXPECT_EQ(files_of(CONCLAVE_ADDITION),
            (std::vector<std::string>{"existing.patch", "layers/moe/methods/bottleneck_scores.cpp"}));
}

TEST_F(AddedMethod, ARoutersKeyIsReadCheckedAndWritten) {
  ASSERT_EQ(train("keyed", bottleneck + "training.steps=4 ").exit_code, 0);
  std::ifstream file(folder_ / "keyed" / "recipe.yaml");
  const std::string recipe{std::istreambuf_iterator<char>(file), {}};
  EXPECT_NE(recipe.find("    bottleneck:\n      width: 4\n"), std::string::npos) << recipe;
  const Outcome wrong = train("wrong", bottleneck + "model.moe.bottleneck.widht=3 ");
  EXPECT_EQ(wrong.exit_code, 2) << wrong.output;
  EXPECT_NE(wrong.output.find("model.moe.bottleneck.width"), std::string::npos) << wrong.output;
  const Outcome changed = train("keyed", bottleneck + "training.steps=8 model.moe.bottleneck.width=5 ");
  EXPECT_NE(changed.exit_code, 0) << changed.output;
}

TEST_F(AddedMethod, ARouterLearnsAndResumesBitEqual) {
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    expect_resumes(bottleneck, ranks);
  }
  const std::vector<double> losses = numbers("whole1", "lm_loss");
  EXPECT_LT(losses.back(), 0.98 * losses.front());
}

TEST_F(AddedMethod, ARouterHasItsOwnParametersAndNoOthers) {
  ASSERT_EQ(train("saved", bottleneck + "training.steps=4 ").exit_code, 0);
  const CheckpointReader reader(checkpoint("saved", 4));
  int own = 0;
  for (const std::string& name : reader.names("model")) {
    EXPECT_FALSE(name.ends_with(".gate.weight")) << name;
    own += name.ends_with(".gate.down.weight") || name.ends_with(".gate.up.weight");
  }
  EXPECT_GT(own, 1);
}

TEST_F(AddedMethod, ARouterIsTheSameOnEveryLayoutWithMasksAndLimits) {
  const std::string more = bottleneck + of_sequences +
                           "model.moe.capacity_factor=0.8 'model.moe.router.pool={minimum: 2, maximum: 4, "
                           "evaluation: 3}' ";
  ASSERT_EQ(train("one", more).exit_code, 0);
  ASSERT_EQ(train("data", more, 2).exit_code, 0);
  ASSERT_EQ(train("expert", more + "parallel.expert=2 ", 2).exit_code, 0);
  for (const char* other : {"data", "expert"})
    for (const char* key : {"lm_loss", "grad_norm", "dropped_assignments"})
      expect_near(numbers("one", key), numbers(other, key));
}

#else

TEST_F(AddedMethod, AnObjectiveTouchesOneExistingFile) {
  EXPECT_EQ(touched_by(CONCLAVE_ADDITION), (std::vector<std::string>{"layers/moe/methods.cpp"}));
  EXPECT_EQ(files_of(CONCLAVE_ADDITION),
            (std::vector<std::string>{"existing.patch", "layers/moe/methods/habit.cpp"}));
}

TEST_F(AddedMethod, AnObjectiveIsPartOfTheLossAndReportedByName) {
  const std::string alone = steps + "'model.moe.balance=[]' model.moe.router.z_loss_coefficient=0 ";
  ASSERT_EQ(train("alone", alone).exit_code, 0);
  const std::vector<double> loss = numbers("alone", "loss"), lm = numbers("alone", "lm_loss"),
                            habit = numbers("alone", "habit_loss");
  ASSERT_EQ(loss.size(), 8u);
  ASSERT_EQ(habit.size(), 8u);
  EXPECT_EQ(habit[0], 0);
  for (std::size_t step = 0; step < loss.size(); ++step) {
    EXPECT_NEAR(loss[step], lm[step] + 0.1 * habit[step], 1e-12);
    if (step > 0) {
      EXPECT_GT(habit[step], 0.1);
    }
  }
}

TEST_F(AddedMethod, AnObjectiveIsTheSameOnEveryLayout) {
  ASSERT_EQ(train("one", steps + of_sequences).exit_code, 0);
  ASSERT_EQ(train("data", steps + of_sequences, 2).exit_code, 0);
  ASSERT_EQ(train("expert", steps + of_sequences + "parallel.expert=2 ", 2).exit_code, 0);
  for (const char* other : {"data", "expert"})
    for (const char* key : {"loss", "grad_norm", "habit_loss"})
      expect_near(numbers("one", key), numbers(other, key));
}

TEST_F(AddedMethod, AnObjectivesStateIsSavedAndGoesOn) {
  expect_resumes(steps, 2);
  const CheckpointReader reader(checkpoint("whole2", 4));
  ASSERT_TRUE(reader.contains("state/habit"));
  const std::vector<double> habit = reader.read_all<double>("state/habit");
  EXPECT_NE(habit, std::vector<double>(habit.size()));
}

#endif

}  // namespace
}  // namespace conclave
