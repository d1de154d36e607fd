#include "tests/launch/command_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "framework/base/random.h"

namespace conclave {

Json parse_json(const std::string& text) {
  return Json::parse(text);
}

Json parse_json(std::istream& text) {
  return parse_json(std::string(std::istreambuf_iterator<char>(text), {}));
}

Outcome run(const std::string& command) {
  FILE* pipe = ::popen(("( " + command + " ) 2>&1 </dev/null").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen failed");
  Outcome outcome{-1, ""};
  std::array<char, 4096> block;
  while (const std::size_t count = std::fread(block.data(), 1, block.size(), pipe))
    outcome.output.append(block.data(), count);
  const int status = ::pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

Outcome conclave_command(const std::string& arguments, int ranks) {
  const std::string program = "OMP_NUM_THREADS=1 timeout 120 ";
  // Sanitized builds: the leaks that Open MPI itself leaves are not ours to report.
  // Open MPI 5 speaks of networks on stderr where a machine has none; ranks of one machine need no TCP.
  const std::string environment = "export ASAN_OPTIONS=detect_leaks=0 OMPI_MCA_btl=^tcp; ";
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

void Command::SetUpTestSuite() {
  std::string name = (std::filesystem::temp_directory_path() / "conclave-command-XXXXXX").string();
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  folder_ = name;
  for (const std::string domain : {"numbers", "letters"}) {
    std::ofstream text(folder_ / (domain + ".txt"));
    const RandomKey key = RandomKey(1).with(domain);
    for (std::uint64_t document = 0; document < 60; ++document) {
      for (std::uint64_t word = 0; word < 12; ++word)
        text << (domain == "numbers"
                     ? std::to_string(key.below(document * 12 + word, 500))
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
            "       train: [{path: " +
                path("numbers") + ", domain: numbers}, {path: " + path("letters") +
                ", domain: letters}],\n"
                "       validation: [{path: " +
                path("numbers-validation") +
                ", domain: numbers},\n"
                "                    {path: " +
                path("letters-validation") +
                ", domain: letters}]}\n"
                "training: {global_batch_size: 8, micro_batch_size: 2, steps: 10}\n"
                "optimizer: {lr: 0.01, schedule: {kind: constant, warmup_steps: 2}}\n"
                "checkpoint: {interval: 5, keep: 0}\n"
                "evaluation: {interval: 5, batches: 2}\n";
}

Outcome Command::train(const std::string& output, const std::string& overrides, int ranks) {
  return conclave_command("train " + path("recipe.yaml") + " output=" + path(output) + " " + overrides,
                          ranks);
}

std::vector<Json> Command::metrics(const std::string& output) {
  std::vector<Json> lines;
  std::ifstream file(folder_ / output / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    Json json = parse_json(line);
    for (const char* timing : {"step_seconds", "tokens_per_second", "model_flops_per_second"})
      json.erase(timing);
    for (auto item = json.begin(); item != json.end();)
      item = item.key().starts_with("wait_seconds_") ? json.erase(item) : std::next(item);
    lines.push_back(json);
  }
  return lines;
}

}  // namespace conclave
