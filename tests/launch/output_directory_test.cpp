// The files that a run finds in its output directory: those that somebody else has written are refused, what
// an earlier start has measured is moved aside, and a refusal is told in the log that is there.
#include <fstream>
#include <map>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class OutputDirectory : public Command {
 protected:
  static std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  static void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  static void expect_refused(const Outcome& outcome, const std::string& file) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_NE(outcome.output.find("output: "), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find(file), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("choose another output"), std::string::npos) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
  }
  static constexpr const char* quick = "training.steps=2 evaluation.interval=0 ";
};

TEST_F(OutputDirectory, NobodysRecipeIsOverwritten) {
  const std::string recipe = content(folder_ / "recipe.yaml");
  // A directory called checkpoints shows no run.
  write(folder_ / "beside/recipe.yaml", recipe);
  fs::create_directory(folder_ / "beside/checkpoints");
  expect_refused(run("cd " + path("beside") + "; " + CONCLAVE_COMMAND + " train recipe.yaml output=."),
                 "recipe.yaml");
  EXPECT_EQ(content(folder_ / "beside/recipe.yaml"), recipe);
  // Nor is it the recipe that came that matters.
  write(folder_ / "other/recipe.yaml", "name: somebody's own\n");
  for (const int ranks : {1, 2}) expect_refused(train("other", quick, ranks), path("other/recipe.yaml"));
  EXPECT_EQ(content(folder_ / "other/recipe.yaml"), "name: somebody's own\n");
  EXPECT_FALSE(fs::exists(folder_ / "other/metrics.jsonl"));
  // A run owns what it has left, whatever is missing of it.
  for (const std::string left : {"checkpoints", "recipes", "metrics.jsonl"}) {
    ASSERT_EQ(train("own-" + left, quick).exit_code, 0);
    for (const char* name : {"checkpoints", "recipes", "metrics.jsonl"})
      if (name != left) fs::remove_all(folder_ / ("own-" + left) / name);
    EXPECT_EQ(train("own-" + left, quick).exit_code, 0) << left;
  }
}

TEST_F(OutputDirectory, ADatasetCalledDataKeepsItsDescription) {
  ASSERT_EQ(
      conclave_command("tokenize --output " + path("mine/data") + " --domain numbers " + path("numbers.txt"))
          .exit_code,
      0);
  const std::string description = content(folder_ / "mine/data.json");
  ASSERT_FALSE(description.empty());
  ASSERT_EQ(train("mine", quick).exit_code, 0);
  EXPECT_EQ(content(folder_ / "mine/data.json"), description);
  EXPECT_EQ(parse_json(content(folder_ / "mine/passes.json"))["step"], 2);
  EXPECT_EQ(conclave_command("report " + path("mine")).exit_code, 0);
  // Nor does a start without a checkpoint move it.
  fs::remove_all(folder_ / "mine/checkpoints");
  ASSERT_EQ(train("mine", quick).exit_code, 0);
  EXPECT_EQ(content(folder_ / "mine/data.json"), description);
}

TEST_F(OutputDirectory, AReportReadsThePassesOfAnOlderRun) {
  ASSERT_EQ(train("old", quick).exit_code, 0);
  fs::rename(folder_ / "old/passes.json", folder_ / "old/data.json");
  ASSERT_EQ(conclave_command("report " + path("old")).exit_code, 0);
  EXPECT_NE(content(folder_ / "old/report.html").find("Passes over the training text, after step 2"),
            std::string::npos);
}

TEST_F(OutputDirectory, ForeignFilesAreRefused) {
  write(folder_ / "passes/passes.json", "{\"of\": \"another program\"}");
  expect_refused(train("passes", quick), path("passes/passes.json"));
  EXPECT_EQ(content(folder_ / "passes/passes.json"), "{\"of\": \"another program\"}");
  for (const char* name : {"profile.txt", "trace.json"}) {
    const std::string output = std::string("profile-") + name;
    write(folder_ / output / name, "another program's");
    expect_refused(train(output, std::string(quick) + "logging.profile=true"), path(output + "/" + name));
    EXPECT_EQ(train(output, quick).exit_code, 0) << "it is in nobody's way";
    EXPECT_EQ(content(folder_ / output / name), "another program's");
  }
}

TEST_F(OutputDirectory, ALinkIsNotFollowed) {
  for (const char* name : {"log.txt", "passes.json", "metrics.jsonl"}) {
    const std::string output = std::string("linked-") + name, target = output + "-target";
    write(folder_ / target, "");
    fs::create_directory(folder_ / output);
    fs::create_symlink(folder_ / target, folder_ / output / name);
    for (const int ranks : {1, 2}) expect_refused(train(output, quick, ranks), path(output + "/" + name));
    EXPECT_EQ(content(folder_ / target), "");
  }
}

TEST_F(OutputDirectory, AllThatWasMeasuredIsMovedAside) {
  ASSERT_EQ(train("measured", std::string(quick) + "training.steps=4 logging.profile=true").exit_code, 0);
  std::map<std::string, std::string> before;
  for (const char* name : {"profile.txt", "trace.json", "passes.json", "metrics.jsonl"}) {
    before[name] = content(folder_ / "measured" / name);
    ASSERT_FALSE(before[name].empty()) << name;
  }
  fs::remove_all(folder_ / "measured/checkpoints");
  const Outcome again = train("measured", std::string(quick) + "logging.profile=true");
  ASSERT_EQ(again.exit_code, 0) << again.output;
  for (const auto& [name, text] : before)
    EXPECT_EQ(content(folder_ / "measured/earlier-1" / name), text) << name;
}

TEST_F(OutputDirectory, ACompleteRunNamesBothNumbers) {
  ASSERT_EQ(train("complete", quick).exit_code, 0);
  const Outcome outcome = train("complete", std::string(quick) + "training.steps=1");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("it has done 2 steps, and training.steps is 1. Raise training.steps above 2"),
            std::string::npos)
      << outcome.output;
}

TEST_F(OutputDirectory, ARefusalAtAResumeIsInTheLogToo) {
  ASSERT_EQ(train("refused", quick).exit_code, 0);
  const std::string words = "model.rope_theta: 10000 -> 5000";
  const Outcome outcome = train("refused", std::string(quick) + "training.steps=4 model.rope_theta=5000", 2);
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_NE(outcome.output.find(words), std::string::npos) << outcome.output;
  const std::string log = content(folder_ / "refused/log.txt");
  EXPECT_EQ(occurrences(log, words), 1u) << log;
}

}  // namespace
}  // namespace conclave
