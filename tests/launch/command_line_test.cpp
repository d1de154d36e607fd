// The command line: options, help, unknown names, exit codes; and `conclave validate` from its arguments to
// its text.
#include "launch/tools/commands/command_line.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <new>

#include "launch/tools/commands/validate.h"
#include "tests/launch/example.h"

namespace conclave {
namespace {

using Arguments = std::vector<std::string>;

Options sample(const Arguments& arguments) {
  return Options({.name = "sample",
                  .positionals = "CHECKPOINT",
                  .summary = "A command for tests.",
                  .options = {{"prompt", "TEXT", "what to begin with"},
                              {"length", "N", "tokens"},
                              {"input", "FILE", "files", true},
                              {"json", "", "prints JSON"}}},
                 arguments);
}

TEST(Options, ReadsValuesFlagsAndPositionals) {
  const Options options = sample({"runs/x", "--prompt", "Hello --you", "--length=12", "--json", "--input",
                                  "a", "--input=b", "steps=3", "--", "--z"});
  EXPECT_EQ(options.text("prompt", ""), "Hello --you");
  EXPECT_EQ(options.whole_number("length", 0, 1), 12);
  EXPECT_EQ(options.number("length", 0), 12.0);
  EXPECT_TRUE(options.has("json"));
  EXPECT_EQ(options.texts("input"), (Arguments{"a", "b"}));
  EXPECT_EQ(options.positionals(), (Arguments{"runs/x", "--z"}));
  EXPECT_EQ(options.overrides(), Arguments{"steps=3"});
  EXPECT_EQ(sample({}).text("prompt", "none"), "none");
  EXPECT_EQ(sample({"--length", "-3"}).whole_number("length", 0, -5), -3);
  EXPECT_EQ(sample({"--prompt="}).text("prompt", "none"), "");
}

TEST(Options, RefusesWhatItDoesNotKnow) {
  const auto message = [](const Arguments& arguments) {
    return request_error([&] {
      const Options options = sample(arguments);
      options.whole_number("length", 0, 1);
      options.refuse_overrides();
      options.only_positional("checkpoint");
    });
  };
  EXPECT_EQ(message({"x"}), "");
  EXPECT_EQ(message({"x", "--promt", "a"}), "sample: there is no option '--promt'; did you mean '--prompt'?");
  EXPECT_NE(message({"x", "--zzzzzzz"}).find("valid are --help, --prompt"), std::string::npos);
  EXPECT_NE(message({"x", "-p"}).find("two dashes"), std::string::npos);
  EXPECT_NE(message({"x", "--length"}).find("needs a value: --length N"), std::string::npos);
  EXPECT_NE(message({"x", "--length", "--json"}).find("needs a value"), std::string::npos);
  EXPECT_NE(message({"x", "--length", "3x"}).find("whole number, at least 1"), std::string::npos);
  EXPECT_NE(message({"x", "--length", "0"}).find("0 came"), std::string::npos);
  EXPECT_NE(message({"x", "--json=1"}).find("takes no value"), std::string::npos);
  EXPECT_NE(message({"x", "--json", "--json"}).find("came twice"), std::string::npos);
  EXPECT_NE(message({"x", "a=1"}).find("no recipe to override"), std::string::npos);
  EXPECT_NE(message({}).find("no checkpoint came"), std::string::npos);
  EXPECT_NE(message({"x", "y"}).find("'y' came besides x"), std::string::npos);
}

TEST(Options, AreExplained) {
  const Options options = sample({"--help"});
  EXPECT_TRUE(options.wants_help());
  for (const char* part :
       {"usage: conclave sample [options] CHECKPOINT", "--length N", "tokens", "may be repeated"})
    EXPECT_NE(options.help().find(part), std::string::npos) << part;
}

struct Outcome {
  int exit_code;
  std::string out, err;
};

Outcome run(const std::vector<Command>& commands, const Arguments& arguments) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int exit_code = run_command(commands, "1.2.3", arguments);
  const std::string out = testing::internal::GetCapturedStdout();
  return {exit_code, out, testing::internal::GetCapturedStderr()};
}

TEST(RunCommand, FindsCommandsAndTurnsErrorsIntoExitCodes) {
  const std::vector<Command> commands = {
      {"train", "trains", [](const Arguments& arguments) { return static_cast<int>(arguments.size()); }},
      {"lose", "loses data", [](const Arguments&) -> int { fail(Fault::data, "the file is gone"); }},
      {"eat", "eats memory", [](const Arguments&) -> int { throw std::bad_alloc(); }},
      {"break", "has a bug", [](const Arguments&) -> int { throw std::runtime_error("odd"); }},
  };
  EXPECT_EQ(run(commands, {"train", "a", "b"}).exit_code, 2);
  EXPECT_EQ(run(commands, {"--version"}).out, "conclave 1.2.3\n");
  EXPECT_NE(run(commands, {"--help"}).out.find("loses data"), std::string::npos);
  EXPECT_EQ(run(commands, {}).exit_code, 2);
  const Outcome unknown = run(commands, {"tarin"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_EQ(unknown.err, "conclave: there is no command 'tarin'; did you mean 'train'?\n");
  const Outcome lost = run(commands, {"lose"});
  EXPECT_EQ(lost.exit_code, 3);
  EXPECT_EQ(lost.err, "conclave: the file is gone\n");
  EXPECT_EQ(run(commands, {"eat"}).exit_code, 5);
  EXPECT_EQ(run(commands, {"break"}).exit_code, 1);
}

TEST(Completion, OffersCommandsOptionsKeysAndWords) {
  const auto describe = [](const std::string& positionals) {
    return [positionals](const Arguments& arguments) {
      const Options options({.name = "sample",
                             .positionals = positionals,
                             .summary = "",
                             .options = {{"prompt", "TEXT", ""}, {"profile", "", ""}, {"json", "", ""}}},
                            arguments);
      EXPECT_TRUE(options.wants_help());
      std::fputs(options.help().c_str(), stdout);
      return 0;
    };
  };
  const std::vector<Command> commands = {{"train", "", describe("RECIPE.yaml [key.path=value ...]")},
                                         {"inspect", "", describe("CHECKPOINT")}};
  const auto offered = [&](Arguments words) {
    words.insert(words.begin(), "--complete");
    const Outcome outcome = run(commands, words);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.err, "");
    return outcome.out;
  };
  EXPECT_EQ(offered({""}), "help\n--help\n--version\ntrain\ninspect\n");
  EXPECT_EQ(offered({"tr"}), "train\n");
  EXPECT_EQ(offered({"nothing", "a"}), "");
  EXPECT_EQ(offered({"inspect", "--pro"}), "--prompt\n--profile\n");
  EXPECT_EQ(offered({"inspect", "--prompt", "--j"}), "") << "the value of an option is the user's";
  EXPECT_EQ(offered({"inspect", "--profile", "--j"}), "--json\n");
  EXPECT_EQ(offered({"inspect", "model.m"}), "") << "this command has no recipe";
  EXPECT_EQ(offered({"train", ""}), "");
  EXPECT_EQ(offered({"train", "r.yaml", "mo"}), "model.\n");
  EXPECT_EQ(offered({"train", "r.yaml", "model.m"}), "model.moe.\n");
  EXPECT_EQ(offered({"train", "model.moe.num_experts"}),
            "model.moe.num_experts=\nmodel.moe.num_experts_per_tok=\n");
  EXPECT_EQ(offered({"train", "model.moe.bal"}), "model.moe.balance=\n");
  EXPECT_EQ(offered({"train", "model.moe.balance.3.est"}), "model.moe.balance.3.estimator=\n");
  EXPECT_EQ(offered({"train", "model.moe.balance.3.estimator=l"}), "model.moe.balance.3.estimator=lagged\n");
  EXPECT_EQ(offered({"train", "checkpoint.asynchronous="}),
            "checkpoint.asynchronous=true\ncheckpoint.asynchronous=false\n");
  EXPECT_EQ(offered({"train", "training.steps="}), "");
  EXPECT_EQ(offered({"train", "no.such.key=a=b"}), "");
}

TEST(ValidateCommand, PrintsTheWholePlan) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "conclave_validate_command_test.yaml";
  std::ofstream(path) << example_text;
  const std::vector<Command> commands = {{"validate", "", run_validate}};
  const Outcome good = run(commands, {"validate", path.string(), "--ranks", "4"});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  for (const char* part :
       {"num_experts: 16", "routed experts of a block [16]", "Parameters", "3,483,008", "Memory per rank",
        "AdamW moments", "Network per rank and step", "gradients, all-reduced", "data/code.bin is not there",
        "The model exports as qwen3_moe.\n", "is valid on 4 ranks"})
    EXPECT_NE(good.out.find(part), std::string::npos) << part << " is missing from\n" << good.out;
  const Outcome bad = run(commands, {"validate", path.string(), "--ranks=3"});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_NE(bad.err.find("multiple of 12"), std::string::npos) << bad.err;
  EXPECT_EQ(run(commands, {"validate", "nowhere.yaml"}).exit_code, 2);
  EXPECT_EQ(run(commands, {"validate"}).exit_code, 2);
  EXPECT_EQ(run(commands, {"validate", "--help"}).exit_code, 0);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace conclave
