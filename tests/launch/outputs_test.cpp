// No command's output takes the place of another file, and one that is cut off leaves nothing behind.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <future>
#include <thread>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class Outputs : public Command {
 protected:
  static bool has(const Outcome& outcome, const std::string& part) {
    return outcome.output.find(part) != std::string::npos;
  }
  static std::string content(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static void write(const std::string& name, const std::string& text) { std::ofstream(path(name)) << text; }
  static std::vector<std::string> partials(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().string().find(".partial") != std::string::npos) names.push_back(entry.path());
    return names;
  }
  static void expect_refusal(const std::string& arguments, const std::string& words) {
    const Outcome outcome = conclave_command(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments << outcome.output;
    EXPECT_TRUE(has(outcome, words)) << arguments << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "\n"), 1u) << outcome.output;
  }
};

TEST_F(Outputs, AReportReplacesNothingButAReport) {
  for (const char* run_name : {"shown", "other"}) ASSERT_EQ(train(run_name, "training.steps=5").exit_code, 0);
  write("page.html", "<!DOCTYPE html>\n<title>My own page</title>\n");
  write("notes.txt", "some notes\n");
  write("empty.html", "");
  fs::create_directory(path("folder.html"));
  fs::create_symlink(path("page.html"), path("link.html"));
  for (const std::string name :
       {"other/checkpoints/step-00000005/index.h5", "other/metrics.jsonl", "other/experts.h5",
        "shown/metrics.jsonl", "recipe.yaml", "numbers.bin", "numbers.idx", "notes.txt", "page.html"}) {
    const std::string before = content(path(name));
    ASSERT_FALSE(before.empty()) << name;
    expect_refusal("report " + path("shown") + " --output " + path(name),
                   path(name) + " is there and is not a page of `conclave report`");
    EXPECT_EQ(content(path(name)), before);
  }
  expect_refusal("report " + path("shown") + " --output " + path("folder.html"), "is a folder");
  expect_refusal("report " + path("shown") + " --output " + path("link.html"), "is a symbolic link");
  write("shown/report.html", "a page of mine");
  expect_refusal("report " + path("shown"), "report.html is there and is not a page");
  EXPECT_EQ(content(path("shown/report.html")), "a page of mine");
  for (const char* name : {"empty.html", "empty.html", "new.html"}) {
    const Outcome shown = conclave_command("report " + path("shown") + " --output " + path(name));
    EXPECT_EQ(shown.exit_code, 0) << shown.output;
  }
  EXPECT_NE(content(path("empty.html")).find("shown"), std::string::npos);
}

TEST_F(Outputs, ADescriptionOfAMachineReplacesNoRecipe) {
  const std::string recipe = content(path("recipe.yaml"));
  expect_refusal("bench --machine " + path("recipe.yaml"), "recipe.yaml is there and is not a description");
  EXPECT_EQ(content(path("recipe.yaml")), recipe);
}

TEST_F(Outputs, TokenFilesAreReplacedOnRequestOnly) {
  const std::string words = "tokenize --domain a --document-separator line " + path("letters.txt") + " ";
  const std::string to = words + "--output " + path("tokens");
  ASSERT_EQ(conclave_command(to).exit_code, 0);
  const std::string before = content(path("tokens.bin"));
  expect_refusal(to, "tokens.bin is there already (a, 60 documents, ");
  expect_refusal(to, "add --replace");
  expect_refusal(words + "--output " + path("new") + " --held-out 0.2 --held-out-output " + path("tokens"),
                 "tokens.bin is there already");
  EXPECT_FALSE(fs::exists(path("new.bin")));
  EXPECT_EQ(content(path("tokens.bin")), before);
  EXPECT_EQ(conclave_command(to + " --replace --split-long 16").exit_code, 0);
  EXPECT_NE(content(path("tokens.idx")), "");

  // With --replace, too, a file that is none of theirs stays.
  write("foreign.json", "{\"setting\": 1}");
  write("bare.bin", "some bytes");
  write("text.idx", "an index of my own");
  expect_refusal(words + "--replace --output " + path("foreign"), "is not the description of token files");
  expect_refusal(words + "--replace --output " + path("bare"), "as it has no .idx beside it");
  expect_refusal(words + "--replace --output " + path("text"), "is not the index of token files");
  EXPECT_EQ(content(path("foreign.json")), "{\"setting\": 1}");
  EXPECT_EQ(content(path("bare.bin")), "some bytes");
}

TEST_F(Outputs, AVocabularyIsReplacedOnRequestOnly) {
  const std::string words = "tokenize --vocab-size 300 " + path("letters.txt") + " --train-sentencepiece ";
  ASSERT_EQ(conclave_command(words + path("pieces")).exit_code, 0);
  expect_refusal(words + path("pieces"), "pieces.model is there already");
  EXPECT_EQ(conclave_command(words + path("pieces") + " --replace").exit_code, 0);
  write("weights.model", "something else");
  expect_refusal(words + path("weights") + " --replace", "is not a SentencePiece model");
}

TEST_F(Outputs, ANameThatCannotBeThatOfAPairIsRefused) {
  const std::string words = "tokenize " + path("letters.txt") + " ";
  fs::create_directory(path("data"));
  for (const char* option : {"--output ", "--train-sentencepiece "}) {
    expect_refusal(words + option + path("data/"), "names a folder");
    expect_refusal(words + option + path("data/."), "names a folder");
    expect_refusal(words + option + path("data/y.bin"), "data/y is the common name");
    expect_refusal(words + option + path("data/y.model"), "data/y is the common name");
  }
  expect_refusal(words + "--output " + path("y") + " --held-out 0.5 --held-out-output " + path("y.idx"),
                 "came with the ending of one file");
  EXPECT_TRUE(fs::is_empty(path("data")));
}

// One long line keeps the command busy while it is asked to stop.
TEST_F(Outputs, AnInterruptedTokenizeLeavesNothing) {
  {
    std::ofstream text(path("long.txt"));
    for (int i = 0; i < 3'000'000; ++i) text << "word " << i << "\n";
  }
  fs::create_directory(path("cut"));
  const std::string command = std::string(CONCLAVE_COMMAND) +
                              " tokenize --document-separator line --output " + path("cut/tokens") + " " +
                              path("long.txt");
  for (const auto& [signal, number] : {std::pair{"INT", SIGINT}, {"TERM", SIGTERM}, {"KILL", SIGKILL}}) {
    // A background job of a shell ignores SIGINT, so each is started by a process that takes it.
    std::future<Outcome> job =
        std::async(std::launch::async, [&] { return run("exec env --default-signal=INT " + command); });
    for (int attempt = 0; attempt < 2000 && partials(path("cut")).size() < 3; ++attempt)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_EQ(partials(path("cut")).size(), 3u);
    const std::string name = partials(path("cut"))[0];
    ASSERT_EQ(::kill(std::stoi(name.substr(name.rfind('-') + 1)), number), 0);
    EXPECT_NE(job.get().exit_code, 0) << signal;
    EXPECT_EQ(partials(path("cut")).size(), number == SIGKILL ? 3u : 0u) << signal;
  }
  // A file that SIGKILL left is removed by the next command with the same name, and nothing else is.
  write("cut/other.bin.partial-1", "of another");
  ASSERT_EQ(conclave_command("tokenize --output " + path("cut/tokens") + " " + path("letters.txt")).exit_code,
            0);
  EXPECT_EQ(partials(path("cut")), std::vector<std::string>{path("cut/other.bin.partial-1")});
}

TEST_F(Outputs, APlaceThatCannotBeWrittenIsARequest) {
  ASSERT_EQ(train("model", "training.steps=5").exit_code, 0);
  write("file", "no folder");
  const std::string below = path("file") + "/x";
  std::vector<std::string> places = {below};
  // Only where this process may not write there; root may write to all but a read-only file system.
  if (::access("/sys/kernel", W_OK) != 0) places.emplace_back("/sys/kernel/conclave-output");
  for (const std::string& place : places)
    for (const std::string& arguments :
         {"tokenize " + path("letters.txt") + " --output " + place,
          "report " + path("model") + " --output " + place,
          "extract " + path("model") + " --domain numbers --experts 2 --output " + place,
          "export " + path("model") + " " + place, "bench --machine " + place,
          "train " + path("recipe.yaml") + " output=" + place}) {
      const Outcome outcome = conclave_command(arguments);
      EXPECT_EQ(outcome.exit_code, 2) << arguments << outcome.output;
    }
  const Outcome missing = conclave_command("report " + path("model") + " --output " + path("none/page.html"));
  EXPECT_EQ(missing.exit_code, 2) << missing.output;
}

}  // namespace
}  // namespace conclave
