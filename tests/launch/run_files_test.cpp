// The files of a run: equal for equal runs, with the permissions that the user's umask leaves, and an expert
// history that neither a disk without room nor another list of domains takes away.
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <map>

#include "framework/store/expert_history.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class RunFiles : public Command {
 protected:
  /// All files below a directory by their names there.
  static std::map<std::string, std::string> content(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream stream(entry.path(), std::ios::binary);
      files[fs::relative(entry.path(), directory)] = {std::istreambuf_iterator<char>(stream), {}};
    }
    return files;
  }
  static ExpertHistory history(const std::string& output) {
    return read_expert_history(folder_ / output / "experts.h5");
  }
};

TEST_F(RunFiles, EqualRunsLeaveEqualFiles) {
  for (const char* name : {"first", "second"}) {
    const Outcome outcome = train("equal", "training.steps=10 logging.samples=true", 2);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    fs::rename(folder_ / "equal", folder_ / name);
    ASSERT_EQ(run("sleep 1.1").exit_code, 0);  // what has a time has it in seconds
  }
  auto first = content(folder_ / "first"), second = content(folder_ / "second");
  for (const char* with_times : {"metrics.jsonl", "log.txt", ".lock"}) {
    first.erase(with_times);
    second.erase(with_times);
  }
  EXPECT_TRUE(first.contains("experts.h5") && first.contains("experts/segment-00000001.h5"));
  EXPECT_TRUE(first.contains("checkpoints/step-00000010/index.h5"));
  ASSERT_EQ(first.size(), second.size());
  for (const auto& [name, bytes] : first) EXPECT_TRUE(bytes == second[name]) << name << " differs";
}

TEST_F(RunFiles, TheUmaskIsFollowed) {
  for (const auto& [mask, file_mode, directory_mode] :
       {std::tuple<const char*, mode_t, mode_t>{"0002", 0664, 0775}, {"0077", 0600, 0700}}) {
    const std::string output = std::string("umask") + mask;
    const Outcome outcome = run(
        std::string("umask ") + mask + "; OMP_NUM_THREADS=1 timeout 120 " + CONCLAVE_COMMAND + " train " +
        path("recipe.yaml") + " training.steps=5 logging.tensorboard=true logging.samples=true " +
        "logging.profile=true output=" + path(output) + " && timeout 60 " + CONCLAVE_COMMAND + " report " +
        path(output) + " && timeout 60 " + CONCLAVE_COMMAND + " tokenize --domain a --output " +
        path(output + "/tokens") + " " + path("letters.txt") + " && timeout 60 " + CONCLAVE_COMMAND +
        " export " + path(output) + " " + path(output + "/exported"));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    std::size_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / output)) {
      struct stat status {};
      ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 0777, entry.is_directory() ? directory_mode : file_mode) << entry.path();
      ++files;
    }
    EXPECT_GT(files, 20u);
  }
}

TEST_F(RunFiles, AHistoryThatCannotBeWrittenDoesNotEndTheRun) {
  fs::create_directory(folder_ / "full");
  std::ofstream(folder_ / "full" / "experts") << "in the way";
  const Outcome outcome = train("full", "training.steps=20");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "The expert history cannot be written"), 1u) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "steps 1 to 20 are not in it"), 1u) << outcome.output;
  EXPECT_TRUE(fs::exists(folder_ / "full/checkpoints/step-00000020"));
  EXPECT_EQ(metrics("full").size(), 20u + 4 * 3);
}

TEST_F(RunFiles, AValidationDomainMayBeAddedRemovedOrMovedAtAResume) {
  ASSERT_EQ(train("domains", "training.steps=5").exit_code, 0);
  const std::string numbers = "{path: " + path("numbers-validation") + ", domain: numbers}",
                    letters = "{path: " + path("letters-validation") + ", domain: letters}",
                    more = "{path: " + path("letters") + ", domain: more}";
  const auto resume = [&](int steps, const std::string& validation) {
    const Outcome outcome = train(
        "domains", "training.steps=" + std::to_string(steps) + " 'data.validation=[" + validation + "]'");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_TRUE(outcome.output.find("Resuming after step") != std::string::npos) << outcome.output;
  };
  resume(10, more + ", " + letters + ", " + numbers);
  resume(15, letters);
  const ExpertHistory found = history("domains");
  EXPECT_EQ(found.step.size(), 15u);
  EXPECT_EQ(found.domains, (std::vector<std::string>{"letters", "numbers", "more"}));
  EXPECT_EQ(found.evaluation_step, (std::vector<std::int64_t>{5, 10, 15}));
  const std::size_t row = 2 * 4;  // layers and experts
  for (const auto& [evaluation, domain, there] : {std::tuple{0, 0, true},
                                                  {0, 1, true},
                                                  {0, 2, false},
                                                  {1, 0, true},
                                                  {1, 1, true},
                                                  {1, 2, true},
                                                  {2, 0, true},
                                                  {2, 1, false},
                                                  {2, 2, false}})
    EXPECT_EQ(found.evaluation_counts.at(
                  (static_cast<std::size_t>(evaluation) * 3 + static_cast<std::size_t>(domain)) * row) >= 0,
              there)
        << evaluation << " " << domain;
  const Outcome report = conclave_command("report " + path("domains"));
  EXPECT_EQ(report.exit_code, 0) << report.output;
}

}  // namespace
}  // namespace conclave
