// Everyday manners of the command: doctor, examples in every help that hold, what a terminal sees and what a
// pipe sees.
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "launch/train/recipe_text.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

class Manners : public Command {
 protected:
  static bool has(const Outcome& outcome, const std::string& part) {
    return outcome.output.find(part) != std::string::npos;
  }
  /// Runs a shell command on a pseudo-terminal of its own.
  static Outcome on_a_terminal(const std::string& command, const std::string& environment = "",
                               int columns = 140) {
    return run("export ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 TERM=xterm " + environment +
               "; timeout 100 script -qec 'stty cols " + std::to_string(columns) + "; " + command +
               "' /dev/null");
  }
  static bool has_script() { return run("command -v script").exit_code == 0; }
};

TEST_F(Manners, DoctorReportsTheMachineAndLeavesNothingBehind) {
  const std::string place = path("place");
  std::filesystem::create_directory(place);
  const Outcome outcome = conclave_command("doctor --directory " + place);
  EXPECT_EQ(outcome.exit_code, has(outcome, "PROBLEM  ") ? 5 : 0) << outcome.output;
  for (const char* part :
       {"Program\n", "oneDNN ", "HDF5 ", "Processors\n", "NUMA node", "Memory\n", "Limits of a process\n",
        "GPUs\n", "File system of ", "MB/s", "HDF5 writes and reads"})
    EXPECT_TRUE(has(outcome, part)) << part << " is missing from\n" << outcome.output;
  EXPECT_FALSE(has(outcome, "\x1b[")) << "colours in a pipe";
  EXPECT_TRUE(std::filesystem::is_empty(place));
}

TEST_F(Manners, DoctorLooksAtRanks) {
  const Outcome outcome = conclave_command("doctor --directory " + folder_.string(), 2);
  EXPECT_EQ(outcome.exit_code, has(outcome, "PROBLEM  ") ? 5 : 0) << outcome.output;
  EXPECT_TRUE(has(outcome, "rank 0 on ") && has(outcome, "rank 1 on ")) << outcome.output;
  EXPECT_TRUE(has(outcome, "what one rank writes, all ranks see")) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "Processors\n"), 1u) << "each rank speaks";
}

TEST_F(Manners, DoctorNamesWhatIsWrong) {
  const Outcome threads = run(std::string("OMP_NUM_THREADS=100000 timeout 60 ") + CONCLAVE_COMMAND +
                              " doctor --directory " + folder_.string());
  EXPECT_EQ(threads.exit_code, 5) << threads.output;
  EXPECT_TRUE(has(threads, "PROBLEM  that is more threads than the")) << threads.output;
  EXPECT_EQ(conclave_command("doctor --directory " + path("nowhere")).exit_code, 2);
  EXPECT_EQ(conclave_command("doctor here").exit_code, 2);
  EXPECT_EQ(conclave_command("doctor training.steps=2").exit_code, 2);
}

/// A text as one word of a shell.
std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

/// The words of a shell command, quotes taken off.
std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::string word;
  bool inside = false;
  char quote = 0;
  for (const char c : line + " ") {
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      inside = true;
    } else if (c == ' ' || c == '\t') {
      if (inside) words.push_back(word);
      word.clear();
      inside = false;
    } else {
      word += c;
      inside = true;
    }
  }
  return words;
}

/// The commands "conclave NAME ..." of a help text, without what starts them.
std::vector<std::vector<std::string>> examples_of(const std::string& help) {
  std::vector<std::vector<std::string>> examples;
  std::istringstream lines(help.substr(std::min(help.size(), help.find("xample"))));
  std::string joined;
  for (std::string line; std::getline(lines, line);) {
    joined += line;
    if (joined.ends_with("\\")) {
      joined.pop_back();
      continue;
    }
    std::istringstream commands(joined);
    joined.clear();
    for (std::string command; std::getline(commands, command, ';');) {
      std::vector<std::string> words = words_of(command);
      while (!words.empty() && words[0] != "conclave") words.erase(words.begin());
      if (words.size() > 1) examples.push_back(words);
    }
  }
  return examples;
}

/// The fault of an example: an unknown option, key or recipe; "" if nothing.
std::string mistake_in(const std::vector<std::string>& example, const std::string& help) {
  for (std::size_t i = 2; i < example.size(); ++i) {
    const std::string& word = example[i];
    const std::size_t equals = word.find('=');
    if (word.starts_with("--")) {
      const std::string option = word.substr(0, equals);
      if (help.find("\n  " + option + " ") == std::string::npos)
        return option + " is not in the list of options";
    } else if (equals != std::string::npos && example[i - 1] != "--prompt") {
      const std::string key = word.substr(0, equals);
      if (!recipe_schema().is_key(key)) return key + " is no key of a recipe";
    } else if (word.starts_with("examples/") &&
               !std::filesystem::exists(std::filesystem::path(CONCLAVE_SOURCE_FOLDER) / word)) {
      return word + " is not there";
    }
  }
  return "";
}

TEST_F(Manners, EveryHelpHasExamplesThatHold) {
  const Outcome general = conclave_command("--help");
  std::istringstream lines(general.output.substr(general.output.find("commands:\n") + 10));
  std::set<std::string> commands;
  for (std::string line; std::getline(lines, line) && line.starts_with("  ");)
    commands.insert(words_of(line).at(0));
  ASSERT_GE(commands.size(), 10u) << general.output;
  ASSERT_TRUE(commands.contains("doctor") && commands.contains("train"));
  for (const std::string& command : commands) {
    const Outcome help = conclave_command(command + " --help");
    EXPECT_EQ(help.exit_code, 0) << help.output;
    bool shows_itself = false;
    for (const std::vector<std::string>& example : examples_of(help.output)) {
      EXPECT_TRUE(commands.contains(example[1])) << "an example of " << command << " runs " << example[1];
      if (!commands.contains(example[1])) continue;
      shows_itself = shows_itself || example[1] == command;
      const Outcome other = example[1] == command ? help : conclave_command(example[1] + " --help");
      EXPECT_EQ(mistake_in(example, other.output), "") << "in an example of " << command;
    }
    EXPECT_TRUE(shows_itself) << command << " --help has no example of itself:\n" << help.output;
  }
}

TEST_F(Manners, ATestOfExamplesFindsMistakes) {
  const std::string help =
      "options:\n  --ranks N  plans\n\nExamples:\n  conclave validate examples/quickstart.yaml";
  const auto mistake = [&](const std::string& rest) {
    return mistake_in(examples_of(help + rest).at(0), help);
  };
  EXPECT_EQ(mistake(" --ranks 2 training.steps=3"), "");
  EXPECT_EQ(mistake(" --rank 2"), "--rank is not in the list of options");
  EXPECT_EQ(mistake(" training.step=3"), "training.step is no key of a recipe");
  EXPECT_EQ(mistake(" examples/none.yaml"), "examples/none.yaml is not there");
}

TEST_F(Manners, ATerminalSeesABarAndAPipeSeesLines) {
  if (!has_script()) GTEST_SKIP() << "there is no `script` to make a terminal with";
  const std::string steps = "training.steps=200 checkpoint.interval=0 evaluation.interval=0";
  const std::string command =
      std::string(CONCLAVE_COMMAND) + " train " + path("recipe.yaml") + " " + steps + " output=";
  const Outcome terminal = on_a_terminal(command + path("terminal"));
  ASSERT_EQ(terminal.exit_code, 0) << terminal.output;
  EXPECT_TRUE(has(terminal, "\r[")) << terminal.output;
  EXPECT_TRUE(has(terminal, "=>") && has(terminal, " left")) << terminal.output;
  EXPECT_TRUE(has(terminal, "\r[========================] step 200/200")) << terminal.output;
  const Outcome narrow = on_a_terminal(command + path("narrow"), "", 80);
  EXPECT_FALSE(has(narrow, "\r[")) << narrow.output;
  EXPECT_TRUE(has(narrow, "left\x1b[K")) << "the time left is cut off: " << narrow.output;
  const Outcome pipe = train("pipe", steps);
  ASSERT_EQ(pipe.exit_code, 0) << pipe.output;
  EXPECT_FALSE(has(pipe, "\r") || has(pipe, "\x1b[")) << pipe.output;
  EXPECT_TRUE(has(pipe, "step 200/200")) << pipe.output;
}

TEST_F(Manners, ColoursAreForTerminalsThatWantThem) {
  if (!has_script()) GTEST_SKIP() << "there is no `script` to make a terminal with";
  const std::string command = std::string(CONCLAVE_COMMAND) + " doctor --directory " + folder_.string();
  EXPECT_TRUE(has(on_a_terminal(command), "\x1b[32mOK"));
  EXPECT_FALSE(has(on_a_terminal(command, "NO_COLOR=1"), "\x1b["));
  EXPECT_FALSE(has(on_a_terminal(command, "TERM=dumb"), "\x1b["));
}

TEST_F(Manners, WhatCannotBePrintedEndsWithFive) {
  ASSERT_EQ(train("printed", "training.steps=5").exit_code, 0);
  const std::string run_directory = path("printed");
  for (const std::string& arguments :
       {"inspect " + run_directory, std::string("inspect --help"), std::string("--version"),
        std::string("--help"), "validate " + path("recipe.yaml"), "evaluate " + run_directory,
        "report " + run_directory, "generate " + run_directory + " --tokens 4", "ranks " + run_directory,
        "export " + run_directory + " " + path("exported"),
        "tokenize --output " + path("again") + " --domain a " + path("letters.txt")}) {
    const Outcome full = conclave_command(arguments + " 2>&1 >/dev/full");
    EXPECT_EQ(full.exit_code, 5) << arguments << full.output;
    EXPECT_TRUE(has(full, "conclave: standard output cannot be written")) << arguments << full.output;
    EXPECT_EQ(occurrences(full.output, "\n"), 1u) << full.output;
  }
  const Outcome head = run("bash -c " + quoted("set -o pipefail; " + std::string(CONCLAVE_COMMAND) +
                                               " inspect " + run_directory + " | head -n 1"));
  EXPECT_TRUE(head.exit_code == 0 || head.exit_code == 141) << head.exit_code;
  EXPECT_EQ(occurrences(head.output, "\n"), 1u) << head.output;
}

TEST_F(Manners, NamesCannotActOnATerminal) {
  const std::string name = "'\"a\\x1b[31mb\"'", shown = "a\\x1b[31mb";
  for (const std::string& command :
       {"validate " + path("recipe.yaml") + " data.train.0.domain=" + name,
        "validate " + path("recipe.yaml") + " tokenizer=" + name,
        "train " + path("recipe.yaml") + " training.steps=5 output=" + path("named") + " name=" + name +
            " data.train.0.domain=" + name + " data.validation.0.domain=" + name,
        "inspect " + path("named"), "evaluate " + path("named"), "report " + path("named"),
        "inspect $'" + path("gone\\x1b[2J") + "'"}) {
    const Outcome outcome = run("bash -c " + quoted(std::string(CONCLAVE_COMMAND) + " " + command));
    EXPECT_FALSE(has(outcome, "\x1b")) << command << outcome.output;
    if (!command.starts_with("report")) {
      EXPECT_TRUE(has(outcome, "\\x1b[")) << command << outcome.output;
    }
  }
  EXPECT_EQ(run("grep -c '\x1b' " + path("named/log.txt")).output, "0\n");
}

TEST_F(Manners, WhatYamlTakesForACommentIsNamed) {
  const Outcome cut = train("comment", "training.steps=1 'name=exp #5'", 2);
  EXPECT_EQ(cut.exit_code, 0) << cut.output;
  EXPECT_EQ(occurrences(cut.output, "conclave: warning: override 'name=exp #5'"), 1u) << cut.output;
  EXPECT_TRUE(has(cut, "exp: "));
  const Outcome whole = conclave_command("validate " + path("recipe.yaml") + " 'name=\"exp #5\"'");
  EXPECT_EQ(whole.exit_code, 0) << whole.output;
  EXPECT_FALSE(has(whole, "comment")) << whole.output;
}

TEST_F(Manners, NamesOfTwoLinesAreRefused) {
  for (const char* key : {"output", "name", "data.train.0.path", "data.tokenizer"}) {
    const Outcome outcome =
        conclave_command("train " + path("recipe.yaml") + " '" + key + "=\"a\\nb\"' training.steps=1");
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_TRUE(has(outcome, "without a line break")) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "\n"), 1u) << outcome.output;
  }
}

TEST_F(Manners, ARequestThatIsNearlyRightIsHelped) {
  std::ofstream(path("empty.yaml")) << "# nothing yet\n";
  const std::string recipe = path("recipe.yaml");
  ASSERT_EQ(train("near", "training.steps=5").exit_code, 0);
  for (const auto& [arguments, words] : std::vector<std::pair<std::string, std::string>>{
           {"validate " + recipe + " --print optimizer",
            "is a section or a list; name a key in it: optimizer.kind"},
           {"validate " + recipe + " training.steps", "whose value is written training.steps=VALUE"},
           {"train " + recipe + " training.steps", "whose value is written training.steps=VALUE"},
           {"validate " + path("empty.yaml"), "empty.yaml' is empty"},
           {"train " + recipe + " 'data.train=[{path: " + path("numbers") + "}]'",
            "data.train.0.domain: this key is missing"},
           {"train " + recipe + " $'output=a\nb'", "the value has a line break"},
           {"validate " + recipe + " training.time_limit=soon", "D-HH:MM or D-HH:MM:SS as in Slurm"},
           {"bench --only train --steps 0", "nothing is measured"},
           {"bench --only collectives", "expected at least two"},
           {"export " + path("near") + " " + path("near-out") + " --shard-size 0",
            "export: --shard-size '0' came"},
           {"export " + path("near") + " " + path("near-out") + " --arch gpt2",
            "The architecture 'gpt2' came"}}) {
    const Outcome outcome =
        run("bash -c " + quoted("timeout 60 " + std::string(CONCLAVE_COMMAND) + " " + arguments));
    EXPECT_EQ(outcome.exit_code, 2) << arguments << outcome.output;
    EXPECT_TRUE(has(outcome, words)) << arguments << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "\n"), 1u) << outcome.output;
    EXPECT_LE(occurrences(outcome.output, "qwen3_moe"), 1u) << outcome.output;
  }
}

}  // namespace
}  // namespace conclave
