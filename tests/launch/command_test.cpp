// The command as users start it: exit codes, one message per job, resuming bit for bit, what a run leaves behind.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "framework/base/random.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/expert_history.h"

namespace conclave {
namespace {

using Json = nlohmann::json;

struct Outcome {
  int exit_code;
  std::string output;  // standard output and standard error
};

Outcome run(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1 </dev/null").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen failed");
  Outcome outcome{-1, ""};
  std::array<char, 4096> block;
  while (const std::size_t count = std::fread(block.data(), 1, block.size(), pipe))
    outcome.output.append(block.data(), count);
  const int status = ::pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

Outcome conclave_command(const std::string& arguments, int ranks = 1) {
  const std::string program = "OMP_NUM_THREADS=1 timeout 120 ";
  // Sanitized builds: the leaks that Open MPI itself leaves are not ours to report.
  const std::string environment = "export ASAN_OPTIONS=detect_leaks=0; ";
  if (ranks == 1) return run(environment + program + CONCLAVE_COMMAND + " " + arguments);
  return run(environment + program + CONCLAVE_MPIRUN +
             " --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n " +
             std::to_string(ranks) + " " + CONCLAVE_COMMAND + " " + arguments);
}

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// A scratch directory with two small domains of text that has some structure, and a recipe.
class Command : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = (std::filesystem::temp_directory_path() / "conclave-command-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    for (const std::string domain : {"numbers", "letters"}) {
      std::ofstream text(folder_ / (domain + ".txt"));
      const RandomKey key = RandomKey(1).with(domain);
      for (std::uint64_t document = 0; document < 60; ++document) {
        for (std::uint64_t word = 0; word < 12; ++word)
          text << (domain == "numbers" ? std::to_string(key.below(document * 12 + word, 500))
                                       : std::string(3, static_cast<char>('a' + key.below(document * 12 + word, 26))))
               << (word == 11 ? "\n" : " ");
      }
      text.close();
      const Outcome made = conclave_command("tokenize --output " + path(domain) + " --domain " + domain +
                                            " --document-separator line --held-out 0.2 --held-out-output " +
                                            path(domain + "-validation") + " " + path(domain + ".txt"));
      ASSERT_EQ(made.exit_code, 0) << made.output;
    }
    std::ofstream recipe(folder_ / "recipe.yaml");
    recipe << "name: small\n"
              "model: {vocab_size: 264, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2,\n"
              "        num_key_value_heads: 1, head_dim: 16,\n"
              "        moe: {num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 32,\n"
              "              balance: [{scope: global_batch, estimator: warm, coefficient: 0.01}]}}\n"
              "data: {sequence_length: 32, domain_block: 2,\n"
              "       train: [{path: " + path("numbers") + ", domain: numbers}, {path: " + path("letters") +
                  ", domain: letters}],\n"
                  "       validation: [{path: " + path("numbers-validation") + ", domain: numbers},\n"
                  "                    {path: " + path("letters-validation") + ", domain: letters}]}\n"
                  "training: {global_batch_size: 8, micro_batch_size: 2, steps: 10}\n"
                  "optimizer: {lr: 0.01, schedule: {kind: constant, warmup_steps: 2}}\n"
                  "checkpoint: {interval: 5, keep: 0}\n"
                  "evaluation: {interval: 5, batches: 2}\n";
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static std::string path(const std::string& name) { return (folder_ / name).string(); }
  static Outcome train(const std::string& output, const std::string& overrides, int ranks = 1) {
    return conclave_command("train " + path("recipe.yaml") + " output=" + path(output) + " " + overrides, ranks);
  }
  /// The lines of metrics.jsonl without what depends on time.
  static std::vector<Json> metrics(const std::string& output) {
    std::vector<Json> lines;
    std::ifstream file(folder_ / output / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      Json json = Json::parse(line);
      for (const char* timing : {"step_seconds", "tokens_per_second", "model_flops_per_second"}) json.erase(timing);
      lines.push_back(json);
    }
    return lines;
  }
  static inline std::filesystem::path folder_;
};

TEST_F(Command, ARunLeavesWhatTheContractPromises) {
  const Outcome outcome = train("whole", "", 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  std::int64_t steps = 0, evaluations = 0;
  double first = 0, last = 0;
  std::ifstream file(folder_ / "whole" / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line);
    if (json.contains("split")) {
      ++evaluations;
      EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(json["lm_loss"].get<double>()), 1e-9);
      continue;
    }
    for (const char* key : {"step", "tokens", "lm_loss", "load_balance_loss", "router_z_loss", "loss", "grad_norm",
                            "learning_rate", "step_seconds", "tokens_per_second", "model_flops_per_second",
                            "max_load_violation"})
      EXPECT_TRUE(json.contains(key)) << key;
    EXPECT_EQ(json["step"], ++steps);
    EXPECT_EQ(json["tokens"], 8 * 32);
    (steps == 1 ? first : last) = json["lm_loss"];
  }
  EXPECT_EQ(steps, 10);
  EXPECT_EQ(evaluations, 2 * 3);  // two domains and their mean, at steps 5 and 10
  EXPECT_NEAR(first, std::log(264.0), 0.1);
  EXPECT_LT(last, first - 0.5);

  const ExpertHistory history = read_expert_history(folder_ / "whole" / "experts.h5");
  ASSERT_EQ(history.step.size(), 10u);
  for (std::size_t row = 0; row < 10 * 2; ++row) {  // [steps, layers]
    std::int64_t assignments = 0;
    double probability = 0;
    for (std::size_t e = 0; e < 4; ++e) {
      assignments += history.counts[row * 4 + e];
      probability += history.probability[row * 4 + e];
    }
    EXPECT_EQ(assignments, 8 * 32 * 2);
    EXPECT_NEAR(probability, 1.0, 1e-5);
  }
  EXPECT_EQ(history.evaluation_step, (std::vector<std::int64_t>{5, 10}));
  for (const char* name : {"recipe.yaml", "log.txt", "checkpoints/step-00000010/manifest.json"})
    EXPECT_TRUE(std::filesystem::exists(folder_ / "whole" / name)) << name;

  const Outcome again = train("whole", "", 2);  // nothing left to do
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_NE(again.output.find("complete"), std::string::npos) << again.output;

  const Outcome evaluated = conclave_command("evaluate " + path("whole"));
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
  EXPECT_NE(evaluated.output.find("mutual information"), std::string::npos);
  const Outcome generated = conclave_command("generate " + path("whole") + " --prompt '12 ' --tokens 20");
  EXPECT_EQ(generated.exit_code, 0) << generated.output;
  EXPECT_EQ(generated.output.rfind("12 ", 0), 0u) << generated.output;
  EXPECT_EQ(conclave_command("generate " + path("whole") + " --prompt '12 ' --tokens 20").output, generated.output);
  EXPECT_EQ(conclave_command("inspect " + path("whole")).exit_code, 0);
}

TEST_F(Command, AResumedRunIsBitEqualToOneThatWasNotStopped) {
  for (const int ranks : {1, 2}) {
    const std::string whole = "straight" + std::to_string(ranks), parts = "parts" + std::to_string(ranks);
    // Exact estimator and a batch ramp beside it: all state that a step depends on must survive.
    const std::string overrides = "training.batch_ramp.start_batch_size=4 training.batch_ramp.increment=4 "
                                  "training.batch_ramp.steps_per_increment=4";
    ASSERT_EQ(train(whole, overrides, ranks).exit_code, 0);
    ASSERT_EQ(train(parts, overrides + " training.steps=5", ranks).exit_code, 0);
    const Outcome resumed = train(parts, overrides, ranks);
    ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
    EXPECT_NE(resumed.output.find("Resuming after step 5"), std::string::npos) << resumed.output;
    EXPECT_EQ(metrics(whole), metrics(parts));
    const CheckpointReader a(folder_ / whole / "checkpoints/step-00000010");
    const CheckpointReader b(folder_ / parts / "checkpoints/step-00000010");
    ASSERT_EQ(a.names(), b.names());
    ASSERT_GT(a.names().size(), 60u);
    for (const std::string& name : a.names()) {
      if (name.starts_with("state/"))
        EXPECT_EQ(a.read_all<double>(name), b.read_all<double>(name)) << name;
      else
        EXPECT_EQ(a.read_all<float>(name), b.read_all<float>(name)) << name;
    }
  }
}

TEST_F(Command, TheBalanceStateMattersForResuming) {
  // A test of the test above: without f_prev the estimator `warm` would start anew, and the comparison would see it.
  const auto fractions =
      CheckpointReader(folder_ / "straight1" / "checkpoints/step-00000005").read_all<double>("state/previous_fractions");
  ASSERT_EQ(fractions.size(), 8u);
  EXPECT_NEAR(fractions[0] + fractions[1] + fractions[2] + fractions[3], 1.0, 1e-12);
}

TEST_F(Command, SignalsSaveAndExitWith75) {
  const std::string output = path("signalled");
  const Outcome outcome =
      run("export ASAN_OPTIONS=detect_leaks=0; OMP_NUM_THREADS=1 " + std::string(CONCLAVE_COMMAND) + " train " +
          path("recipe.yaml") + " output=" + output +
          " training.steps=100000 checkpoint.interval=0 evaluation.interval=0 & child=$!;"
          " for i in $(seq 100); do grep -qs '\"step\": 3,' " + output + "/metrics.jsonl && break; sleep 0.1; done;"
          " kill -TERM $child; wait $child");
  EXPECT_EQ(outcome.exit_code, 75) << outcome.output;
  EXPECT_FALSE(std::filesystem::is_empty(output + "/checkpoints"));
}

TEST_F(Command, BadRequestsEndWithOneSentenceAndTheRightCode) {
  struct Case {
    std::string arguments;
    int exit_code;
    std::vector<std::string> words;
  };
  const std::string recipe = "train " + path("recipe.yaml") + " output=" + path("bad") + " ";
  {
    std::ofstream torn(path("torn.bin"));
    torn << "1234";
    std::filesystem::copy_file(path("numbers.idx"), path("torn.idx"));
    std::ofstream blocked(path("blocked"));
    blocked << "a file where a directory should be";
  }
  const std::vector<Case> cases = {
      {recipe + "model.moe.num_expert=3", 2, {"num_expert", "num_experts"}},
      {recipe + "model.hidden_size=wide", 2, {"model.hidden_size", "wide"}},
      {recipe + "model.moe.num_experts_per_tok=9", 2, {"num_experts_per_tok", "9", "4"}},
      {recipe + "model.num_key_value_heads=3", 2, {"num_key_value_heads", "3"}},
      {recipe + "training.global_batch_size=6 training.micro_batch_size=4", 2, {"global_batch_size", "6"}},
      {recipe + "parallel.expert=2", 2, {"parallel.expert"}},
      {recipe + "training.device=cuda", 2, {"training.device"}},
      {recipe + "'data.train=[{path: nowhere/text, domain: x}]'", 3, {"nowhere/text"}},
      {recipe + "'data.train=[{path: " + path("torn") + ", domain: x}]'", 3, {"torn"}},
      {recipe + "model.vocab_size=257 data.tokenizer=bytes 'optimizer.groups=[{pattern: nothing.*}]'", 2,
       {"nothing.*"}},
      {"train " + path("recipe.yaml") + " output=" + path("blocked"), 2, {"blocked"}},
      {"train " + path("recipe.yaml") + " checkpoint.resume=false output=" + path("whole"), 2, {"checkpoint.resume"}},
      {"train " + path("no-such.yaml"), 2, {"no-such.yaml"}},
      {"evaluate " + path("nothing-here"), 3, {"nothing-here"}},
      {"generate " + path("nothing-here"), 3, {"nothing-here"}},
      {"trian", 2, {"train"}},
      {"train", 2, {"recipe"}},
  };
  for (const Case& bad : cases)
    for (const int ranks : {1, 4}) {
      if (ranks == 4 && (bad.exit_code == 2 && !bad.arguments.starts_with("train "))) continue;
      const Outcome outcome = conclave_command(bad.arguments, ranks == 4 && bad.arguments != "train" ? 4 : 1);
      EXPECT_EQ(outcome.exit_code, bad.exit_code) << bad.arguments << "\n" << outcome.output;
      EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << bad.arguments << "\n" << outcome.output;
      for (const std::string& word : bad.words)
        EXPECT_NE(outcome.output.find(word), std::string::npos) << bad.arguments << "\n" << outcome.output;
      if (bad.arguments.starts_with("generate")) break;  // has no ranks
    }
  EXPECT_FALSE(std::filesystem::exists(path("bad/metrics.jsonl"))) << "a refused run left something behind";
}

TEST_F(Command, ADivergedRunGivesUpWithFour) {
  const Outcome outcome = train("diverged", "optimizer.lr=1e30 optimizer.grad_clip=0 checkpoint.interval=0", 2);
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
}

TEST_F(Command, ADamagedCheckpointIsNamedAndTheOlderOneTaken) {
  ASSERT_EQ(train("damaged", "").exit_code, 0);
  const auto file = folder_ / "damaged/checkpoints/step-00000010/index.h5";
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(static_cast<std::streamoff>(std::filesystem::file_size(file) / 2));
    bytes.put('\x5a');
  }
  const Outcome resumed = train("damaged", "training.steps=12");
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("step-00000010"), std::string::npos) << resumed.output;
  EXPECT_NE(resumed.output.find("Resuming after step 5"), std::string::npos) << resumed.output;
  EXPECT_EQ(conclave_command("inspect " + path("damaged/checkpoints/step-00000005")).exit_code, 0);
}

TEST_F(Command, HelpTeaches) {
  for (const char* command : {"train", "validate", "tokenize", "evaluate", "generate", "inspect", "bench"}) {
    const Outcome outcome = conclave_command(std::string(command) + " --help");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("conclave " + std::string(command)), std::string::npos) << outcome.output;
    EXPECT_NE(outcome.output.find("xample"), std::string::npos) << command;
  }
  EXPECT_EQ(conclave_command("--version").exit_code, 0);
}

TEST_F(Command, BenchPrintsOneJsonObject) {
  const Outcome outcome = conclave_command("bench " + path("recipe.yaml") + " --steps 2 --json");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const Json report = Json::parse(outcome.output);
  EXPECT_GT(report["matmul_fp32_flops_per_second"].get<double>(), 1e9);
  EXPECT_GT(report["training"]["tokens_per_second"].get<double>(), 0);
}

}  // namespace
}  // namespace conclave
