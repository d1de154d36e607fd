// An optimizer is one new file and its entry in the list of optimizers. With no other change it trains, on
// one rank and with whole matrices dealt to two; its state is in checkpoints; it resumes bit-equal; and a
// checkpoint of another optimizer is refused.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "framework/store/checkpoint_file.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

const std::string normalized = "optimizer.kind=normalized optimizer.lr=0.003 checkpoint.interval=4 ";

class AddedOptimizer : public Command {
 protected:
  static fs::path checkpoint(const std::string& output, int step) {
    return folder_ / output / "checkpoints" /
           ("step-000000" + std::string(step < 10 ? "0" : "") + std::to_string(step));
  }
  static void expect_equal_checkpoints(const std::string& one, const std::string& other, int step) {
    const CheckpointReader a(checkpoint(one, step)), b(checkpoint(other, step));
    EXPECT_EQ(a.names(), b.names());
    EXPECT_EQ(a.integer("optimizer_updates"), step);
    EXPECT_EQ(b.integer("optimizer_updates"), step);
    for (const std::string& name : a.names()) {
      if (a.describe(name).type == ElementType::float64) {
        EXPECT_EQ(a.read_all<double>(name), b.read_all<double>(name)) << name;
      } else {
        EXPECT_EQ(a.read_all<float>(name), b.read_all<float>(name)) << name;
      }
    }
  }
};

TEST_F(AddedOptimizer, TouchesOneExistingFile) {
  std::ifstream patch(fs::path(CONCLAVE_ADDITION) / "existing.patch");
  ASSERT_TRUE(patch.is_open());
  std::vector<std::string> touched;
  int added = 0, removed = 0;
  for (std::string line; std::getline(patch, line);) {
    if (line.starts_with("+++ ")) {
      touched.push_back(line.substr(6));
    } else if (line.starts_with("+")) {
      ++added;
    } else if (line.starts_with("-") && !line.starts_with("--- ")) {
      ++removed;
    }
  }
  EXPECT_EQ(touched, std::vector<std::string>{"optim/optimizers.cpp"});
  EXPECT_EQ(added, 2);
  EXPECT_EQ(removed, 0);
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(CONCLAVE_ADDITION))
    if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), CONCLAVE_ADDITION).string());
  std::sort(files.begin(), files.end());
  EXPECT_EQ(files, (std::vector<std::string>{"existing.patch", "optim/normalized.cpp"}));
}

TEST_F(AddedOptimizer, LearnsIsSavedAndResumesBitEqual) {
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    const std::string whole = "whole" + std::to_string(ranks), parts = "parts" + std::to_string(ranks);
    const std::string overrides = normalized + "training.steps=12 parallel.zero=1 ";
    Outcome outcome = train(whole, overrides, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    const std::vector<Json> lines = metrics(whole);
    double first = 0, last = 0;
    for (const Json& line : lines)
      if (line.contains("lm_loss")) {
        if (first == 0) first = line["lm_loss"].get<double>();
        last = line["lm_loss"].get<double>();
      }
    EXPECT_LT(last, 0.9 * first);

    // Killed some time after step 4 was saved.
    fs::copy(folder_ / whole, folder_ / parts, fs::copy_options::recursive);
    for (const int later : {8, 12}) fs::remove_all(checkpoint(parts, later));
    outcome = train(parts, overrides, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("Resuming after step 4"), std::string::npos) << outcome.output;
    EXPECT_EQ(metrics(whole), metrics(parts));
    expect_equal_checkpoints(whole, parts, 8);
    expect_equal_checkpoints(whole, parts, 12);
  }
}

TEST_F(AddedOptimizer, ItsStateIsWholeInACheckpointAndNoOtherIsThere) {
  ASSERT_EQ(train("saved", normalized + "training.steps=4 parallel.zero=1 ", 2).exit_code, 0);
  const CheckpointReader reader(checkpoint("saved", 4));
  const std::vector<std::string> model = reader.names("model"), states = reader.names("optimizer");
  ASSERT_EQ(states.size(), model.size());
  for (const std::string& name : states) {
    ASSERT_TRUE(name.starts_with("optimizer/momentum/")) << name;
    const std::vector<float> values = reader.read_all<float>(name);
    EXPECT_NE(values, std::vector<float>(values.size())) << name;
  }
}

TEST_F(AddedOptimizer, MatricesDealtToTwoRanksAreMovedAsOnOne) {
  const std::string wide = normalized +
                           "training.steps=6 training.precision=fp64 "
                           "'model.moe.balance=[{scope: sequence, coefficient: 0.01}]' ";
  ASSERT_EQ(train("one", wide).exit_code, 0);
  ASSERT_EQ(train("two", wide + "parallel.zero=1 ", 2).exit_code, 0);
  ASSERT_EQ(train("split", wide + "parallel.zero=1 parallel.expert=2 ", 2).exit_code, 0);
  const CheckpointReader one(checkpoint("one", 6));
  for (const std::string other : {"two", "split"}) {
    const CheckpointReader reader(checkpoint(other, 6));
    ASSERT_EQ(reader.names(), one.names());
    for (const std::string& name : one.names()) {
      const std::vector<double> a = one.read_all<double>(name), b = reader.read_all<double>(name);
      double largest = 0, worst = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(a[i]));
        worst = std::max(worst, std::abs(a[i] - b[i]));
      }
      EXPECT_LE(worst, 1e-9 * largest) << other << ": " << name;
    }
  }
}

TEST_F(AddedOptimizer, StatesOfAnotherOptimizerAreRefused) {
  ASSERT_EQ(train("changed", normalized + "training.steps=4 ").exit_code, 0);
  Outcome outcome = train("changed", "training.steps=8 optimizer.kind=adamw ");
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_NE(
      outcome.output.find("optimizer.kind: adamw came, which keeps moment1, moment2, but the optimizer of"),
      std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find("kept momentum"), std::string::npos) << outcome.output;
  outcome = train("parameters", "training.steps=4 checkpoint.initialize_from=" + path("changed"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
}

}  // namespace
}  // namespace conclave
