// `conclave export` and `conclave import` as users call them: from a run of two ranks to a directory and back
// to a run that goes on under other layouts; exit codes and what is said.
#include <fstream>

#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class ConvertCommand : public Command {
 protected:
  static void SetUpTestSuite() {
    Command::SetUpTestSuite();
    const Outcome trained = train("run", "model.num_key_value_heads=2 parallel.expert=2 parallel.zero=1", 2);
    ASSERT_EQ(trained.exit_code, 0) << trained.output;
    const Outcome exported =
        conclave_command("export " + path("run") + " " + path("exported") + " --shard-size 40KB");
    ASSERT_EQ(exported.exit_code, 0) << exported.output;
    expect_words(exported, {"step-00000010, every checksum is right, as Qwen3MoeForCausalLM in fp32",
                            "model-00001-of-0000", "Done: " + path("exported")});
  }
  static void expect_words(const Outcome& outcome, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(outcome.output.find(word), std::string::npos)
          << "'" << word << "' is not in " << outcome.output;
  }
  static void expect_refusal(const std::string& arguments, int exit_code,
                             const std::vector<std::string>& words) {
    const Outcome outcome = conclave_command(arguments);
    EXPECT_EQ(outcome.exit_code, exit_code) << arguments << ": " << outcome.output;
    expect_words(outcome, words);
  }
  static std::vector<double> losses(const std::string& output) {
    std::vector<double> values;
    for (const Json& line : metrics(output))
      if (line.contains("loss")) values.push_back(line["loss"].get<double>());
    return values;
  }
};

TEST_F(ConvertCommand, AnImportGoesOnTrainingUnderAnyLayout) {
  const std::string recipe = " --recipe " + path("recipe.yaml") + " training.steps=4";
  const Outcome imported = conclave_command("import " + path("exported") + " " + path("one") + recipe);
  ASSERT_EQ(imported.exit_code, 0) << imported.output;
  expect_words(imported, {"Qwen3MoeForCausalLM", "step-00000000", "conclave train " + path("one")});
  EXPECT_EQ(conclave_command("inspect " + path("one")).exit_code, 0);

  // Every parameter of the run, bit by bit.
  const CheckpointReader before(*find_checkpoint(path("run")).path),
      after(*find_checkpoint(path("one")).path);
  ASSERT_EQ(before.names("model"), after.names("model"));
  for (const std::string& name : before.names("model"))
    EXPECT_EQ(before.read_all<float>(name), after.read_all<float>(name)) << name;

  const std::string text = " --tokens 40 --temperature 0 --prompt abc";
  EXPECT_EQ(conclave_command("generate " + path("run") + text).output,
            conclave_command("generate " + path("one") + text).output);

  fs::copy(folder_ / "one", folder_ / "two", fs::copy_options::recursive);
  const Outcome alone = conclave_command("train " + path("one") + "/recipe.yaml");
  ASSERT_EQ(alone.exit_code, 0) << alone.output;
  expect_words(alone, {"Resuming after step 0", "Done: 4 steps"});
  const Outcome together = conclave_command("train " + path("two") + "/recipe.yaml output=" + path("two") +
                                                " parallel.tensor=2 parallel.expert=2 parallel.zero=1",
                                            2);
  ASSERT_EQ(together.exit_code, 0) << together.output;
  const std::vector<double> one = losses("one"), two = losses("two"), run = losses("run");
  ASSERT_EQ(one.size(), 4u);
  ASSERT_EQ(two.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(two[i], one[i], 1e-5 * one[i]) << "step " << i + 1;
  EXPECT_LT(one[0], 0.9 * run[0]) << "it does not begin where the run has ended";
}

TEST_F(ConvertCommand, AnImportWithoutARecipeSaysWhatIsMissing) {
  const Outcome imported = conclave_command("import " + path("exported") + " " + path("bare"));
  ASSERT_EQ(imported.exit_code, 0) << imported.output;
  expect_words(imported, {"'data.train=[{path: PREFIX, domain: NAME}]'"});
  expect_refusal("train " + path("bare") + "/recipe.yaml", 2, {"data.train", "no domain to train on"});
  const Outcome trained =
      conclave_command("train " + path("bare") + "/recipe.yaml 'data.train=[{path: " + path("letters") +
                       ", domain: letters}]' training.steps=1 training.global_batch_size=4");
  EXPECT_EQ(trained.exit_code, 0) << trained.output;
}

TEST_F(ConvertCommand, ADenseModelBecomesAMixtureThatTrains) {
  const Outcome dense = train("dense", "model.moe.first_k_dense_replace=2 model.intermediate_size=64");
  ASSERT_EQ(dense.exit_code, 0) << dense.output;
  const Outcome exported = conclave_command("export " + path("dense") + " " + path("dense-exported"));
  ASSERT_EQ(exported.exit_code, 0) << exported.output;
  expect_words(exported, {"Qwen3ForCausalLM"});
  for (const std::string upcycle :
       {"--upcycle copy --experts 4 --top-k 2", "--upcycle split --experts 8 --top-k 4"}) {
    const std::string run = upcycle.find("copy") == std::string::npos ? "split" : "copied";
    const Outcome imported =
        conclave_command("import " + path("dense-exported") + " " + path(run) + " " + upcycle + " --recipe " +
                         path("recipe.yaml") + " training.steps=3");
    ASSERT_EQ(imported.exit_code, 0) << imported.output;
    const auto evaluated = [&](const std::string& name) {
      const Outcome outcome = conclave_command("evaluate " + path(name) + " --batches 1");
      EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
      const std::size_t at = outcome.output.find("mean");
      return outcome.output.substr(at, outcome.output.find('\n', at) - at);
    };
    EXPECT_EQ(evaluated(run), evaluated("dense"));
    const Outcome trained = conclave_command("train " + path(run) + "/recipe.yaml");
    EXPECT_EQ(trained.exit_code, 0) << trained.output;
  }
}

TEST_F(ConvertCommand, AnExtractIsEvaluatedSampledAndTrained) {
  const std::string words = "extract " + path("run") + " --domain letters --experts ";
  const Outcome extracted = conclave_command(words + "2 --output " + path("letters-2"), 2);
  ASSERT_EQ(extracted.exit_code, 0) << extracted.output;
  expect_words(extracted, {"block 0: the kept experts have", "block 1: the kept experts have",
                           "Done: " + path("letters-2") + "/checkpoints/step-00000000",
                           "--against " + path("letters-2")});
  EXPECT_EQ(occurrences(extracted.output, "Done:"), 1u) << "each rank speaks";
  ASSERT_EQ(conclave_command(words + "4 --output " + path("letters-4")).exit_code, 0);
  const Outcome inspected = conclave_command("inspect " + path("letters-2"));
  EXPECT_EQ(inspected.exit_code, 0);
  expect_words(inspected,
               {"extracted: {\"source\":", "gate.weight  float32 [2, 32]", "every checksum is right"});

  const Outcome compared = conclave_command("evaluate " + path("run") + " --against " + path("letters-2"));
  EXPECT_EQ(compared.exit_code, 0) << compared.output;
  expect_words(compared, {"Difference, other minus first", "mean over domains"});
  const Json two = parse_json(
      conclave_command("evaluate " + path("run") + " --json --against " + path("letters-2"), 2).output);
  EXPECT_EQ(two["experts"], 4);
  EXPECT_EQ(two["against"]["experts"], 2);
  EXPECT_EQ(two["difference"]["domains"][1]["domain"], "letters");
  EXPECT_NEAR(
      two["difference"]["domains"][1]["lm_loss"].get<double>(),
      two["against"]["domains"][1]["lm_loss"].get<double>() - two["domains"][1]["lm_loss"].get<double>(),
      1e-12);
  EXPECT_NE(two["difference"]["mean_lm_loss"], 0.0);
  const Json all = parse_json(
      conclave_command("evaluate " + path("run") + " --json --against " + path("letters-4")).output);
  EXPECT_EQ(all["difference"]["mean_lm_loss"], 0.0);

  const std::string text = " --tokens 20 --temperature 0 --prompt abc";
  EXPECT_EQ(conclave_command("generate " + path("run") + text).output,
            conclave_command("generate " + path("letters-4") + text).output);
  EXPECT_EQ(conclave_command("generate " + path("letters-2") + text).exit_code, 0);
  EXPECT_EQ(conclave_command("export " + path("letters-2") + " " + path("letters-2-exported")).exit_code, 0);
  const Outcome trained =
      conclave_command("train " + path("letters-2") + "/recipe.yaml training.steps=3 parallel.expert=2", 2);
  EXPECT_EQ(trained.exit_code, 0) << trained.output;
  const Outcome begun = train("begun",
                              "training.steps=2 model.num_key_value_heads=2 model.moe.num_experts=2 "
                              "checkpoint.initialize_from=" +
                                  path("letters-2"));
  EXPECT_EQ(begun.exit_code, 0) << begun.output;
}

TEST_F(ConvertCommand, FactsOfASourceOutliveTrainingAndExtraction) {
  fs::copy(folder_ / "exported", folder_ / "source", fs::copy_options::recursive);
  const auto config_in = [&](const std::string& directory) {
    std::ifstream file(folder_ / directory / "config.json");
    return parse_json(file);
  };
  Json config = config_in("source");
  config["max_position_embeddings"] = 40960;
  config["max_window_layers"] = 28;
  std::ofstream(folder_ / "source" / "config.json") << config.dump();
  const std::string recipe = " --recipe " + path("recipe.yaml") + " training.steps=2";
  ASSERT_EQ(conclave_command("import " + path("source") + " " + path("imported") + recipe).exit_code, 0);
  ASSERT_EQ(conclave_command("train " + path("imported") + "/recipe.yaml", 2).exit_code, 0);
  ASSERT_EQ(conclave_command("train " + path("imported") + "/recipe.yaml training.steps=3").exit_code, 0);
  ASSERT_EQ(train("taken", "training.steps=1 model.num_key_value_heads=2 checkpoint.initialize_from=" +
                               path("imported"))
                .exit_code,
            0);
  ASSERT_EQ(conclave_command("extract " + path("taken") + " --domain letters --experts 2 --output " +
                             path("extracted"))
                .exit_code,
            0);
  for (const std::string run : {"imported", "taken", "extracted"}) {
    const Outcome exported = conclave_command("export " + path(run) + " " + path(run + "-out"));
    ASSERT_EQ(exported.exit_code, 0) << exported.output;
    EXPECT_EQ(config_in(run + "-out")["max_position_embeddings"], 40960) << run;
    EXPECT_EQ(config_in(run + "-out")["max_window_layers"], 28) << run;
  }
  // A second spelling that differs is the data's fault.
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7.0}};
  std::ofstream(folder_ / "source" / "config.json") << config.dump();
  expect_refusal("import " + path("source") + " " + path("x"), 3,
                 {"config.json", "rope_parameters.rope_theta is 7.0", "rope_theta is"});
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST_F(ConvertCommand, WhatCannotBeExtractedOrComparedIsASentence) {
  const std::string run = path("run") + " ";
  expect_refusal("extract " + run + "--domain poems --experts 2", 2, {"poems", "numbers, letters"});
  expect_refusal("extract " + run + "--domain letters --experts 5", 2, {"--experts 5", "1 to 4"});
  expect_refusal("extract " + run + "--domain letters", 2, {"--experts is missing"});
  expect_refusal("extract " + run + "--experts 2", 2, {"--domain is missing"});
  expect_refusal("extract " + run + "--domain letters --experts 2 --calibration test", 2,
                 {"train or validation"});
  expect_refusal("extract " + run + "--domain letters --experts 2 --output " + path("run"), 2,
                 {"is there already"});
  expect_refusal("extract " + path("nowhere") + " --domain letters --experts 2", 3, {"nowhere"});
  ASSERT_EQ(train("wider", "model.vocab_size=300 training.steps=1").exit_code, 0);
  expect_refusal("evaluate " + run + "--against " + path("wider"), 2, {"300 token ids", "264"});
  expect_refusal("evaluate " + run + "--against " + path("nowhere"), 3, {"nowhere"});
}

TEST_F(ConvertCommand, WhatIsWrongHasItsExitCode) {
  expect_refusal("export " + path("run"), 2, {"1 place came", "conclave export --help"});
  expect_refusal("export " + path("run") + " " + path("exported"), 2, {"is there already"});
  expect_refusal("export " + path("run") + " " + path("x") + " --arch mixtral", 2,
                 {"MixtralForCausalLM cannot express", "normalises queries and keys"});
  expect_refusal("export " + path("run") + " " + path("x") + " --dtype fp16", 2, {"fp16", "fp32 or bf16"});
  expect_refusal("export " + path("run") + " " + path("x") + " --shard-size 5 GB", 2, {"3 places"});
  expect_refusal("export " + path("run") + " " + path("x") + " --shard-size much", 2, {"'much'", "5GB"});
  expect_refusal("export " + path("nowhere") + " " + path("x"), 3, {"no such file"});
  expect_refusal("import " + path("nowhere") + " " + path("x"), 3, {"config.json"});
  expect_refusal("import " + path("exported") + " " + path("run"), 2, {"is there already"});
  expect_refusal("import " + path("exported") + " " + path("x") + " --experts 4", 2, {"goes with --upcycle"});
  expect_refusal("import " + path("exported") + " " + path("x") + " --upcycle clone", 2,
                 {"clone", "copy or split"});
  expect_refusal("import " + path("exported") + " " + path("step-00000003"), 2, {"directory of a run"});
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

}  // namespace
}  // namespace conclave
