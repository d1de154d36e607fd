// The command on text and token files: beginnings of documents, data without targets, passes.
#include <fstream>

#include "framework/data/token_file.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

class TextCommand : public Command {
 protected:
  /// Documents of one token, each another one, so that no token predicts another.
  static void write_bare_tokens(const std::string& prefix) {
    TokenFileWriter writer(prefix, 264);
    for (std::int32_t i = 0; i < 200; ++i) {
      const std::int32_t token = i % 250;
      writer.append_document({&token, 1});
    }
    writer.finish({.tokenizer = "bytes", .fingerprint = "bytes", .vocab_size = 257});
  }
};

TEST_F(TextCommand, StepsWithoutATargetAreNamedAndARunOfNothingElseIsNotDone) {
  write_bare_tokens(path("bare"));
  const Outcome outcome =
      train("bare-run",
            "'data.train=[{path: " + path("bare") +
                ", domain: bare}]' data.domain_block=0 training.steps=4 training.skip_limit=2 "
                "training.rollback_limit=0 logging.samples=true",
            2);
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
  EXPECT_NE(outcome.output.find("has not made one update: none of the 4 steps"), std::string::npos)
      << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "Done"), 0u) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "tokens/s"), 0u) << outcome.output;
  EXPECT_EQ(
      occurrences(outcome.output, " is left out: none of the 256 tokens of its global batch has a target"),
      4u)
      << outcome.output;
  std::int64_t steps = 0;
  for (const Json& line : metrics("bare-run")) {
    if (line.contains("split")) continue;
    EXPECT_EQ(line["step"], ++steps);
    EXPECT_EQ(line["no_targets"], true);
    EXPECT_TRUE(line["lm_loss"].is_null());
    EXPECT_FALSE(line.contains("skipped"));
  }
  EXPECT_EQ(steps, 4);
  std::ifstream log(folder_ / "bare-run" / "log.txt");
  const std::string text{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(text.find("Data of step 3: bare ("), std::string::npos) << text;
  EXPECT_EQ(occurrences(text, "tokens/s"), 0u) << text;
}

TEST_F(TextCommand, StepsWithoutATargetDoNotEndARunThatLearnsFromOthers) {
  write_bare_tokens(path("bare"));
  const Outcome outcome = train("mixed-run", "'data.train=[{path: " + path("bare") +
                                                 ", domain: bare}, {path: " + path("numbers") +
                                                 ", domain: numbers}]' data.domain_block=8 training.steps=4 "
                                                 "training.skip_limit=1 training.rollback_limit=0");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, " is left out: none of the"), 2u) << outcome.output;
  std::ifstream file(folder_ / "mixed-run" / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json step = parse_json(line);
    if (step.contains("split")) continue;
    for (const char* rate : {"tokens_per_second", "model_flops_per_second"})
      EXPECT_EQ(step[rate].is_null(), step.contains("no_targets")) << line;
  }
}

TEST_F(TextCommand, DocumentsThatNoTokenOpensAreNamed) {
  TokenFileWriter writer(path("foreign"), 264);
  const std::vector<std::int32_t> text = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  for (std::int32_t end = 20; end < 60; ++end) {
    std::vector<std::int32_t> document = text;
    document.push_back(end);
    writer.append_document(document);
  }
  writer.finish({.tokenizer = "bytes", .vocab_size = 257});
  std::filesystem::remove(path("foreign.json"));  // as Megatron's files come
  const std::string data = "'data.train=[{path: " + path("foreign") + ", domain: f}]' training.steps=1 ";
  const Outcome outcome = train("foreign-run", data, 2);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "foreign end differently, so no token opens them"), 1u)
      << outcome.output;
  EXPECT_EQ(occurrences(train("unmasked-run", data + "data.document_mask=false").output, "end differently"),
            0u);
}

TEST_F(TextCommand, AValidationTextWithoutATargetIsLeftOutAndNamed) {
  write_bare_tokens(path("bare"));
  const std::string validation = "'data.validation=[{path: " + path("numbers-validation") +
                                 ", domain: numbers}, {path: " + path("bare") + ", domain: bare}]'";
  const Outcome outcome = train("bare-validation", validation + " training.steps=5");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(
      outcome.output.find("Validation after step 5: The mean leaves out bare, whose text holds no target"),
      std::string::npos)
      << outcome.output;
  std::vector<double> losses;  // of numbers and the mean
  for (const Json& line : metrics("bare-validation"))
    if (line.contains("split")) losses.push_back(line["lm_loss"].get<double>());
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_EQ(losses[0], losses[1]);
  const Outcome evaluated = conclave_command("evaluate " + path("bare-validation"));
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
  EXPECT_NE(evaluated.output.find("The mean leaves out bare"), std::string::npos) << evaluated.output;
  EXPECT_EQ(evaluated.output.find("nan"), std::string::npos) << evaluated.output;
  const Json json = parse_json(conclave_command("evaluate --json " + path("bare-validation")).output);
  EXPECT_TRUE(json["domains"][1]["lm_loss"].is_null());
  EXPECT_EQ(json["mean_lm_loss"], json["domains"][0]["lm_loss"]);
}

TEST_F(TextCommand, PassesOverEachDatasetAreSaidAndReported) {
  const std::string sizes = "'data.train=[{path: " + path("numbers") +
                            ", domain: numbers, weight: size}, {path: " + path("letters") +
                            ", domain: letters, weight: size}]'";
  const Outcome checked = conclave_command("validate " + path("recipe.yaml") + " training.steps=20 " + sizes);
  EXPECT_EQ(checked.exit_code, 0) << checked.output;
  const std::size_t at = checked.output.find("Passes over the training text in 20 steps");
  ASSERT_NE(at, std::string::npos) << checked.output;
  EXPECT_NE(checked.output.find(" % of the mixture", at), std::string::npos) << checked.output;
  EXPECT_NE(checked.output.find("weight: size"), std::string::npos) << checked.output;

  ASSERT_EQ(train("passes", sizes + " training.steps=10", 2).exit_code, 0);
  const Outcome outcome = train("passes", sizes + " training.steps=20", 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  std::ifstream file(folder_ / "passes" / "passes.json");
  const Json data = parse_json(file);
  EXPECT_EQ(data["step"], 20);
  std::int64_t sequences = 0;
  for (const Json& dataset : data["datasets"]) {
    EXPECT_EQ(dataset["passes"], dataset["planned_passes"]);
    const std::int64_t whole = (dataset["tokens"].get<std::int64_t>() - 1) / 32;
    EXPECT_EQ(dataset["sequences"], whole);
    sequences += whole;
  }
  // By size each text is gone over as often as the other.
  const double passes = 20.0 * 8 / static_cast<double>(sequences);
  for (const Json& dataset : data["datasets"]) EXPECT_NEAR(dataset["passes"].get<double>(), passes, 0.15);
  EXPECT_EQ(occurrences(outcome.output, "Passes over it by step 20: numbers "), 1u) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "The model exports as qwen3_moe.\n"), 1u) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "Passes over the training text: numbers "), 1u) << outcome.output;
  ASSERT_EQ(conclave_command("report " + path("passes")).exit_code, 0);
  std::ifstream page(folder_ / "passes" / "report.html");
  const std::string html{std::istreambuf_iterator<char>(page), {}};
  EXPECT_NE(html.find("Passes over the training text, after step 20"), std::string::npos);
}

// In these documents "a" is followed by "b" where a document begins and by "c" everywhere else.
TEST_F(TextCommand, TheBeginningOfADocumentIsTrainedAndGenerated) {
  std::ofstream text(folder_ / "beginnings.txt");
  for (int document = 0; document < 200; ++document) {
    text << "ab";
    for (int pair = 0; pair < 5 + document % 7; ++pair) text << "ac";
    text << "\n";
  }
  text.close();
  ASSERT_EQ(conclave_command("tokenize --document-separator line --output " + path("beginnings") + " " +
                             path("beginnings.txt"))
                .exit_code,
            0);
  const Outcome outcome = train("beginnings-run", "'data.train=[{path: " + path("beginnings") +
                                                      ", domain: b}]' data.validation=[] training.steps=60 "
                                                      "checkpoint.interval=0");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const auto generated = [](const std::string& options) {
    return conclave_command("generate " + path("beginnings-run") + " --temperature 0 --tokens " + options)
        .output;
  };
  EXPECT_EQ(generated("3"), "aba\n");
  EXPECT_EQ(generated("1 --prompt a"), "ac\n");  // nothing stands before a prompt
  EXPECT_EQ(generated("1 --prompt a --document-start"), "ab\n");
}

TEST_F(TextCommand, ValidateSaysOfTheTextsWhatTrainSays) {
  write_bare_tokens(path("bare"));
  std::ofstream(path("short.txt")) << "too short";
  ASSERT_EQ(conclave_command("tokenize --output " + path("short") + " " + path("short.txt")).exit_code, 0);
  std::filesystem::copy(path("numbers.bin"), path("mixed.bin"));
  std::filesystem::copy(path("letters.idx"), path("mixed.idx"));
  std::ofstream(path("table.parquet")) << std::string("PAR1\x15\0", 6);
  ASSERT_EQ(conclave_command("tokenize --train-sentencepiece " + path("own") + " --vocab-size 300 " +
                             path("letters.txt"))
                .exit_code,
            0);
  const auto train_on = [](const std::string& name) {
    return "'data.train=[{path: " + path(name) + ", domain: d}]' ";
  };
  struct Case {
    std::string overrides;
    int exit_code;
    std::string words;
  };
  for (const Case& one : std::vector<Case>{
           {train_on("short"), 3, "one training sequence needs 33"},
           {train_on("mixed"), 3, "mixed.bin holds "},
           {train_on("table"), 3, "table.parquet is a Parquet table"},
           {train_on("numbers.bin"), 2, "was given with its ending"},
           {train_on("numbers.json"), 2, "was given with its ending"},
           {"model.vocab_size=300 data.tokenizer=" + path("own.model"), 3,
            "says that the tokens were made with"},
           {"'data.validation=[{path: " + path("table") + ", domain: d}]'", 3, "is a Parquet table"}}) {
    for (const std::string command : {"validate ", "train "}) {
      const Outcome outcome =
          conclave_command(command + path("recipe.yaml") + " output=" + path("never") + " " + one.overrides);
      EXPECT_EQ(outcome.exit_code, one.exit_code) << command << one.overrides << outcome.output;
      EXPECT_NE(outcome.output.find(one.words), std::string::npos) << command << outcome.output;
      EXPECT_EQ(occurrences(outcome.output, "\n"), 1u) << outcome.output;
    }
  }
}

TEST_F(TextCommand, WhatIsMissingIsNamedWithItsKeyAndWhatMakesIt) {
  const std::string missing = "'data.train=[{path: " + path("nowhere") + ", domain: d}]' ";
  const Outcome checked = conclave_command("validate " + path("recipe.yaml") + " " + missing);
  EXPECT_EQ(checked.exit_code, 0) << checked.output;
  EXPECT_NE(checked.output.find("data.train.0.path: " + path("nowhere.idx") + " is not there"),
            std::string::npos)
      << checked.output;
  const Outcome trained = train("nowhere-run", missing);
  EXPECT_EQ(trained.exit_code, 3) << trained.output;
  EXPECT_NE(trained.output.find("data.train.0.path: the token index " + path("nowhere.idx")),
            std::string::npos)
      << trained.output;
  EXPECT_NE(trained.output.find("`conclave tokenize --output " + path("nowhere")), std::string::npos)
      << trained.output;
  const Outcome quickstart = train("nowhere-run", "'data.train=[{path: data/quickstart/none, domain: d}]'");
  EXPECT_NE(quickstart.output.find("launch/prepare_quickstart_data.sh"), std::string::npos)
      << quickstart.output;
}

TEST_F(TextCommand, AnErrorOfAMachineComesBeforeAnyTable) {
  const Outcome outcome =
      conclave_command("validate " + path("recipe.yaml") + " --machine " + path("nowhere.yaml"));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "\n"), 1u) << outcome.output;
}

}  // namespace
}  // namespace conclave
