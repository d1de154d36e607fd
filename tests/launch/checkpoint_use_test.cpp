// Commands that are given a checkpoint alone: what they need besides, and what may be changed of it.
#include <fstream>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class CheckpointUse : public Command {
 protected:
  static bool has(const Outcome& outcome, const std::string& part) {
    return outcome.output.find(part) != std::string::npos;
  }
};

TEST_F(CheckpointUse, AModelWithItsOwnTokenizerSpeaksFromAnywhere) {
  fs::create_directories(path("home/data"));
  for (const char* kind : {"own", "other"})
    ASSERT_EQ(conclave_command("tokenize --train-sentencepiece " + path(std::string("home/data/") + kind) +
                               " --vocab-size " + (std::string(kind) == "own" ? "320 " : "310 ") +
                               path("letters.txt") + " " + path("numbers.txt"))
                  .exit_code,
              0);
  const std::string home = "cd " + path("home") + " && OMP_NUM_THREADS=1 " + CONCLAVE_COMMAND + " ";
  const Outcome trained = run(
      home + "tokenize --tokenizer data/own.model --output data/letters --domain l " + path("letters.txt") +
      " && " + CONCLAVE_COMMAND + " train " + path("recipe.yaml") +
      " model.vocab_size=324 data.tokenizer=data/own.model output=run training.steps=5 data.validation=[] "
      "'data.train=[{path: data/letters, domain: l}]'");
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  const std::string generate = "generate " + path("home/run") + " --prompt a --tokens 3 --temperature 0";
  const Outcome there = run(home + generate);
  EXPECT_EQ(there.exit_code, 0) << there.output;
  const Outcome elsewhere = conclave_command(generate);
  EXPECT_EQ(elsewhere.exit_code, 3) << elsewhere.output;
  EXPECT_TRUE(has(elsewhere, "data/own.model") && has(elsewhere, "--tokenizer PATH")) << elsewhere.output;
  const Outcome told = conclave_command(generate + " --tokenizer " + path("home/data/own.model"));
  EXPECT_EQ(told.exit_code, 0) << told.output;
  EXPECT_EQ(told.output, there.output);
  const Outcome wrong = conclave_command(generate + " --tokenizer " + path("home/data/other.model"));
  EXPECT_EQ(wrong.exit_code, 3) << wrong.output;
  EXPECT_TRUE(has(wrong, "is not the one that")) << wrong.output;
  const Outcome name = conclave_command(generate + " --tokenizer gpt2");
  EXPECT_EQ(name.exit_code, 3) << name.output;
  EXPECT_TRUE(has(name, "expected bytes, the path of a Hugging Face tokenizer.json")) << name.output;
}

TEST_F(CheckpointUse, AnEvaluationSaysWhatWasChangedAndRefusesAnotherModel) {
  ASSERT_EQ(train("run", "training.steps=5").exit_code, 0);
  const std::string evaluate = "evaluate " + path("run") + " --batches 1 ";
  for (const char* change : {"model.rope_theta=3", "model.moe.router.norm_topk_prob=false",
                             "model.moe.capacity_factor=1", "model.rms_norm_eps=1e-3"}) {
    const Outcome refused = conclave_command(evaluate + change);
    EXPECT_EQ(refused.exit_code, 2) << refused.output;
    EXPECT_TRUE(has(refused, "makes another model of the weights")) << refused.output;
    const std::string key = std::string(change).substr(0, std::string(change).find('='));
    const Outcome accepted = conclave_command(evaluate + change + " checkpoint.accept_changes=[" + key + "]");
    EXPECT_EQ(accepted.exit_code, 0) << accepted.output;
    EXPECT_TRUE(has(accepted, "Changed for this evaluation: " + key)) << accepted.output;
  }
  for (const std::string& change :
       {"output=" + path("elsewhere"), std::string("optimizer.lr=1"), std::string("training.steps=3"),
        std::string("name=x"), std::string("logging.interval=3"), std::string("checkpoint.keep=1")}) {
    const Outcome refused = conclave_command(evaluate + change);
    EXPECT_EQ(refused.exit_code, 2) << refused.output;
    EXPECT_TRUE(has(refused, "means nothing in an evaluation")) << refused.output;
  }
  const Outcome told = conclave_command(evaluate + "data.sequence_length=16", 2);
  EXPECT_EQ(told.exit_code, 0) << told.output;
  EXPECT_EQ(occurrences(told.output, "Changed for this evaluation: data.sequence_length: 32 -> 16"), 1u)
      << told.output;
  EXPECT_FALSE(has(conclave_command(evaluate), "Changed"));
}

TEST_F(CheckpointUse, AnotherShapeIsSaidByItsKeyAndFewTensors) {
  ASSERT_EQ(train("shape", "training.steps=5").exit_code, 0);
  const Outcome outcome = train("shape", "model.hidden_size=64 training.steps=6");
  EXPECT_EQ(outcome.exit_code, 3) << outcome.output;
  const std::size_t key = outcome.output.find("model.hidden_size: 32 -> 64"),
                    tensor = outcome.output.find("expected float32");
  EXPECT_NE(key, std::string::npos) << outcome.output;
  EXPECT_LT(key, tensor) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, ", expected float32"), 5u) << outcome.output;
  EXPECT_TRUE(has(outcome, " other tensors")) << outcome.output;
}

}  // namespace
}  // namespace conclave
