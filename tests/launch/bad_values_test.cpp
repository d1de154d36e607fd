// Values that are not finite: a checkpoint that holds some is never taken for a good one, whatever reads it,
// and a run whose last steps were skipped has not done what it was asked for.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class BadValues : public Command {
 protected:
  static void expect_words(const Outcome& outcome, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(outcome.output.find(word), std::string::npos) << "'" << word << "' is not in\n"
                                                              << outcome.output;
  }
  static void copy_attribute(const CheckpointReader& from, const std::string& key, CheckpointWriter& to) {
    try {
      to.set(key, from.integer(key));
    } catch (const Error&) {
      to.set(key, from.text(key));
    }
  }
  static constexpr const char* first_parameter = "model/model.embed_tokens.weight";
  /// The checkpoint of a step with other values in a tensor: with NaN in the first parameter, as an earlier
  /// version could have written it.
  static void spoil(const std::string& output, std::int64_t step,
                    float value = std::numeric_limits<float>::quiet_NaN(),
                    const std::string& tensor = first_parameter) {
    const fs::path checkpoints = folder_ / output / "checkpoints";
    CheckpointWriter writer(checkpoints, step);
    {
      const CheckpointReader good(checkpoint_path(checkpoints, step));
      for (const std::string& name : good.names()) {
        const Dims dims = good.describe(name).dims;
        if (good.describe(name).type == ElementType::float64) {
          writer.add(name, dims, good.read_all<double>(name).data());
          continue;
        }
        std::vector<float> values = good.read_all<float>(name);
        if (name == tensor) std::fill(values.begin() + 7, values.end(), value);
        writer.add(name, dims, values.data());
      }
      for (const std::string& key : good.attribute_names())
        if (!own_attributes(step).contains(key)) copy_attribute(good, key, writer);
    }
    writer.commit();
  }
  static void flip_byte(const fs::path& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(fs::file_size(path) / 2);
    file.seekg(middle);
    const int byte = file.get();
    file.seekp(middle);
    file.put(static_cast<char>(byte ^ 1));
  }
  static std::vector<std::int64_t> steps_of(const std::string& output) {
    std::vector<std::int64_t> steps;
    for (const fs::path& path : list_checkpoints(folder_ / output / "checkpoints"))
      steps.push_back(step_of_name(path));
    return steps;
  }
};

TEST_F(BadValues, EveryCommandThatReadsACheckpointSaysSoAndExitsWithFour) {
  ASSERT_EQ(train("spoilt", "").exit_code, 0);
  spoil("spoilt", 10);
  const std::string run = path("spoilt"), exported = path("exported");
  const std::vector<std::string> commands = {
      "inspect " + run,
      "evaluate " + run,
      "generate " + run + " --tokens 2",
      "export " + run + " " + exported,
      "extract " + run + " --domain numbers --experts 2 --output " + path("extracted"),
      "train " + path("recipe.yaml") + " output=" + path("taken") + " checkpoint.initialize_from=" + run};
  for (const std::string& command : commands) {
    const Outcome outcome = conclave_command(command);
    EXPECT_EQ(outcome.exit_code, 4) << command << "\n" << outcome.output;
    expect_words(outcome, {"step-00000010", "not finite", "model/model.embed_tokens.weight"});
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
  }
  EXPECT_EQ(conclave_command("evaluate " + run, 2).exit_code, 4);
  EXPECT_FALSE(fs::exists(exported));
  EXPECT_FALSE(fs::exists(exported + ".partial"));
  EXPECT_FALSE(fs::exists(path("extracted")));
  EXPECT_EQ(conclave_command("inspect " + run + "/checkpoints/step-00000005").exit_code, 0);
}

TEST_F(BadValues, ARunResumesFromTheNewestFiniteOne) {
  for (const int ranks : {1, 2}) {
    const std::string output = "resumed" + std::to_string(ranks);
    ASSERT_EQ(train(output, "", ranks).exit_code, 0);
    const std::vector<Json> undisturbed = metrics(output);
    spoil(output, 10);
    const Outcome resumed = train(output, "", ranks);
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    expect_words(resumed, {"Resuming after step 5 ", "warning: ", "step-00000010", "not finite"});
    EXPECT_EQ(metrics(output), undisturbed);
    EXPECT_EQ(conclave_command("inspect " + path(output)).exit_code, 0) << "step 10 was not saved anew";
    spoil(output, 5);
    spoil(output, 10);
    const Outcome hopeless = train(output, "", ranks);
    EXPECT_EQ(hopeless.exit_code, 4) << hopeless.output;
    expect_words(hopeless, {"has finite values", "step-00000010", "step-00000005"});
    EXPECT_EQ(metrics(output), undisturbed) << "a run that cannot begin has changed its metrics";
  }
}

TEST_F(BadValues, ASecondMomentThatIsNaNIsNotTakenEither) {
  ASSERT_EQ(train("moment", "").exit_code, 0);
  spoil("moment", 10, std::numeric_limits<float>::quiet_NaN(), "optimizer/moment2/model.norm.weight");
  const Outcome inspected = conclave_command("inspect " + path("moment"));
  EXPECT_EQ(inspected.exit_code, 4) << inspected.output;
  expect_words(inspected, {"optimizer/moment2/model.norm.weight"});
  expect_words(train("moment", ""), {"Resuming after step 5 "});
}

TEST_F(BadValues, ARejectedCheckpointStandsInNoGoodOnesPlace) {
  for (const std::string damage : {"flip", "nan"}) {
    ASSERT_EQ(train(damage, "").exit_code, 0);
    if (damage == "nan")
      spoil(damage, 10);
    else
      flip_byte(folder_ / damage / "checkpoints/step-00000010/rank-00000.h5");
    const Outcome resumed = train(damage, "training.steps=7 checkpoint.keep=1");
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    expect_words(resumed, {"Resuming after step 5 ", "is kept as step-00000010.rejected"});
    EXPECT_EQ(steps_of(damage), std::vector<std::int64_t>{7});
    EXPECT_TRUE(fs::exists(folder_ / damage / "checkpoints/step-00000010.rejected"));
    const Outcome again = train(damage, "training.steps=12 checkpoint.keep=1 checkpoint.interval=2");
    EXPECT_EQ(again.exit_code, 0) << again.output;
    expect_words(again, {"Resuming after step 7 "});
    EXPECT_EQ(steps_of(damage), std::vector<std::int64_t>{12});
    EXPECT_FALSE(fs::exists(folder_ / damage / "checkpoints/step-00000010.rejected"));
  }
}

TEST_F(BadValues, AFiniteButRuinedStateRemovesNoGoodCheckpoint) {
  for (const char* asynchronous : {"true", "false"}) {
    const std::string output = std::string("ruined-") + asynchronous;
    ASSERT_EQ(train(output, "").exit_code, 0);
    const Outcome ruined = train(output, std::string("training.steps=40 optimizer.lr=1e38 "
                                                     "optimizer.grad_clip=0 checkpoint.keep=1 "
                                                     "evaluation.interval=0 checkpoint.asynchronous=") +
                                             asynchronous);
    EXPECT_EQ(ruined.exit_code, 4) << ruined.output;
    const std::vector<std::int64_t> left = steps_of(output);
    EXPECT_EQ(std::count(left.begin(), left.end(), 10), 1) << ruined.output;
    const Outcome healed = train(output, "training.steps=40");
    EXPECT_EQ(healed.exit_code, 0) << healed.output;
  }
}

TEST_F(BadValues, AnOlderCheckpointGoesWhenAStepOrAnEvaluationProvesTheNewOne) {
  ASSERT_EQ(train("proven", "checkpoint.keep=1 checkpoint.interval=3 evaluation.interval=0").exit_code, 0);
  EXPECT_EQ(steps_of("proven"), std::vector<std::int64_t>{10}) << "an evaluation follows the last step";
  ASSERT_EQ(train("unproven", "checkpoint.keep=1 checkpoint.interval=3 'data.validation=[]'").exit_code, 0);
  EXPECT_EQ(steps_of("unproven"), (std::vector<std::int64_t>{10, 9})) << "nothing has used the last state";
}

TEST_F(BadValues, AnImportIsRefused) {
  ASSERT_EQ(train("source", "").exit_code, 0);
  ASSERT_EQ(conclave_command("export " + path("source") + " " + path("hub")).exit_code, 0);
  {
    std::fstream weights(path("hub/model.safetensors"), std::ios::in | std::ios::out | std::ios::binary);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    weights.seekp(-static_cast<std::streamoff>(sizeof nan), std::ios::end);
    weights.write(reinterpret_cast<const char*>(&nan), sizeof nan);
  }
  const Outcome imported = conclave_command("import " + path("hub") + " " + path("imported"));
  EXPECT_EQ(imported.exit_code, 4) << imported.output;
  expect_words(imported, {"not finite"});
  EXPECT_TRUE(steps_of("imported").empty());
}

TEST_F(BadValues, ALossThatIsNotFiniteIsASentence) {
  ASSERT_EQ(train("overflows", "").exit_code, 0);
  spoil("overflows", 10, 3e38f, "model/model.norm.weight");  // finite, and too large for any logit
  EXPECT_EQ(conclave_command("inspect " + path("overflows")).exit_code, 0);
  const std::vector<std::string> options = {"", " --json",
                                            " --against " + path("overflows/checkpoints/step-00000005")};
  for (const std::string& option : options)
    for (const int ranks : {1, 2}) {
      const Outcome outcome = conclave_command("evaluate " + path("overflows") + option, ranks);
      EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
      EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
      expect_words(outcome, {"step-00000010", "The loss of numbers", "is not finite"});
    }
  // A run that evaluates such a state says so too.
  fs::remove(folder_ / "overflows/metrics.jsonl");
  std::ofstream(folder_ / "overflows/metrics.jsonl") << "{\"step\": 10, \"lm_loss\": 1.0}\n";
  const Outcome resumed = train("overflows", "");
  expect_words(resumed, {"warning: ", "Validation after step 10", "is not finite"});
}

TEST_F(BadValues, ARunThatEndsInSkippedStepsIsNotDone) {
  const std::string wild =
      "optimizer.lr=1e38 optimizer.grad_clip=0 optimizer.schedule.warmup_steps=0 training.steps=8 "
      "training.skip_limit=100 checkpoint.interval=0 evaluation.interval=0";
  for (const int ranks : {1, 2}) {
    const std::string output = "wild" + std::to_string(ranks);
    for (int start = 0; start < 2; ++start) {
      const Outcome outcome = train(output, wild, ranks);
      EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
      EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
      EXPECT_EQ(occurrences(outcome.output, "Done"), 0u) << outcome.output;
      EXPECT_EQ(occurrences(outcome.output, "nan"), 0u) << outcome.output;  // NaN, without a sign
      expect_words(outcome, {"step 8, the last one, is skipped", "7 were skipped, the last 7 in a row"});
      // The update of step 1 was made, and is kept if the values that it gave are finite.
      for (const std::int64_t step : steps_of(output)) EXPECT_EQ(step, 1);
      if (!steps_of(output).empty()) {
        EXPECT_EQ(conclave_command("inspect " + path(output)).exit_code, 0);
      }
    }
  }
  const Outcome all = train("all", wild + " model.initializer_range=1e30");
  EXPECT_EQ(all.exit_code, 4) << all.output;
  expect_words(all, {"Of the 8 steps since this command began 8 were skipped, the last 8 in a row",
                     "There is no checkpoint"});
  EXPECT_TRUE(steps_of("all").empty());
}

TEST_F(BadValues, UpdatesBeforeTheSkippedStepsAreNotLost) {
  // The learning rate of the last step alone is wild, and so are the weights after it, which are not saved.
  const std::string steps =
      "training.steps=6 checkpoint.interval=4 evaluation.interval=0 training.skip_limit=100 ";
  ASSERT_EQ(train("kept", steps + "training.steps=5").exit_code, 0);
  const Outcome outcome = train("kept", steps + "optimizer.lr=1e38 optimizer.grad_clip=0 training.steps=8");
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  const std::vector<std::int64_t> kept = steps_of("kept");
  ASSERT_FALSE(kept.empty());
  EXPECT_GE(kept.front(), 5);
  EXPECT_LT(kept.front(), 8);
  EXPECT_EQ(conclave_command("inspect " + path("kept")).exit_code, 0);
  const Outcome healed = train("kept", "training.steps=12");
  EXPECT_NE(healed.output.find("Resuming after step " + std::to_string(kept.front()) + " "),
            std::string::npos)
      << healed.output;
}

}  // namespace
}  // namespace conclave
