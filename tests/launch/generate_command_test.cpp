// `conclave generate` as users start it: one prompt and several, files of prompts, and what it refuses.
#include "launch/tools/commands/generate.h"

#include <fstream>

#include "framework/base/error.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

class GenerateCommand : public Command {
 protected:
  static void SetUpTestSuite() {
    Command::SetUpTestSuite();
    const Outcome outcome = train("grown", "training.steps=20 checkpoint.interval=0");
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }
  static Outcome generate(const std::string& options) {
    return conclave_command("generate " + path("grown") + " " + options);
  }
};

std::string without_first_line(const std::string& text) {
  return text.substr(text.find('\n') + 1);
}

TEST_F(GenerateCommand, SeveralPromptsGiveTheTextsOfEachAlone) {
  // Prompts of uneven length, one longer than the window of 32 tokens; all walk beyond it.
  const std::vector<std::string> prompts = {"1", "12 34", "abc abc abc abc abc abc abc abc abc abc", ""};
  const std::string options = " --temperature 0 --tokens 40";
  std::string expected, asked, lines;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Outcome alone = generate("--prompt '" + prompts[i] + "'" + options);
    ASSERT_EQ(alone.exit_code, 0) << alone.output;
    EXPECT_TRUE(alone.output.starts_with(prompts[i])) << alone.output;
    expected += "== prompt " + std::to_string(i + 1) + " of 4 ==\n" + alone.output;
    asked += " --prompt '" + prompts[i] + "'";
    lines += prompts[i] + (i % 2 == 0 ? "\r\n" : "\n");
  }
  const Outcome together = generate(asked + options + " 2>/dev/null");
  EXPECT_EQ(together.exit_code, 0);
  EXPECT_EQ(together.output, expected);

  std::ofstream(path("prompts.txt")) << lines;
  const Outcome from_file = generate("--prompts " + path("prompts.txt") + options);
  EXPECT_EQ(from_file.exit_code, 0);
  // Three texts fill the window, and one is longer from the start and needs none; 2 layers, keys and values
  // of 1 head of 16.
  EXPECT_TRUE(from_file.output.starts_with("4 prompts; the key-value cache takes 24.6 kB.\n"))
      << from_file.output;
  EXPECT_EQ(without_first_line(from_file.output), expected);
}

TEST_F(GenerateCommand, EachPromptHasDrawsOfItsOwn) {
  const std::string options = " --temperature 2 --tokens 12";
  const Outcome alone = generate("--prompt 1" + options);
  const Outcome twice = generate("--prompt 1 --prompt 1" + options + " 2>/dev/null");
  const std::string first = "== prompt 1 of 2 ==\n" + alone.output, second = "== prompt 2 of 2 ==\n";
  ASSERT_TRUE(twice.output.starts_with(first + second)) << twice.output;
  EXPECT_NE(twice.output.substr(first.size() + second.size()), alone.output);
  EXPECT_EQ(generate("--prompt 1 --prompt 1" + options + " 2>/dev/null").output, twice.output);
}

TEST_F(GenerateCommand, WithPoolsItSaysThatItGoesWithoutACache) {
  const Outcome trained = train("pooled",
                                "training.steps=5 checkpoint.interval=0 "
                                "'model.moe.router.pool={minimum: 2, maximum: 3, evaluation: 2}'");
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  const Outcome outcome = conclave_command("generate " + path("pooled") + " --prompt 1 --tokens 3");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_NE(outcome.output.find("model.moe.router.pool.evaluation: 2 makes all tokens of a document share"),
            std::string::npos)
      << outcome.output;
  EXPECT_EQ(conclave_command("generate " + path("pooled") + " --prompt 1 --tokens 3 2>/dev/null").output,
            without_first_line(outcome.output));
}

TEST_F(GenerateCommand, BadPromptsAreASentence) {
  std::ofstream(path("none.txt")).close();
  struct Case {
    std::string options;
    int exit_code;
    std::string words;
  };
  for (const Case& one :
       std::vector<Case>{{"--prompts " + path("none.txt"), 3, "is empty; expected a prompt"},
                         {"--prompts " + path("not-here.txt"), 3, "not-here.txt"},
                         {"--prompts " + path("none.txt") + " --prompt a", 2, "beside --prompts"}}) {
    const Outcome outcome = generate(one.options);
    EXPECT_EQ(outcome.exit_code, one.exit_code) << outcome.output;
    EXPECT_NE(outcome.output.find(one.words), std::string::npos) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "\n"), 1u) << outcome.output;
  }
}

TEST(GenerateMemory, ACacheThatDoesNotFitIsRefused) {
  MachineFacts machine;
  EXPECT_NO_THROW(check_cache_fits(std::size_t{1} << 60, 0, 1, machine)) << "unknown memory is enough";
  machine.available = 8'000'000'000;
  EXPECT_NO_THROW(check_cache_fits(8'000'000'000, 2'000'000'000, 3, machine));
  machine.memory_limit = 9'000'000'000;
  EXPECT_NO_THROW(check_cache_fits(7'000'000'000, 2'000'000'000, 3, machine));
  for (const std::size_t bytes : {7'000'000'001u, 4'000'000'000'000u}) {
    try {
      check_cache_fits(bytes, 2'000'000'000, 3, machine);
      ADD_FAILURE() << bytes;
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::machine);
      EXPECT_NE(std::string(error.what()).find("key-value cache of 3 prompts takes"), std::string::npos);
      EXPECT_NE(std::string(error.what()).find("has 7.0 GB left"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace conclave
