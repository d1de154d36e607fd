// A table of recipes that are wrong, each with the words that its error must have: the line, the key, what
// came and what was expected. And texts made to break a parser.
#include <gtest/gtest.h>

#include "framework/base/random.h"
#include "launch/train/recipe_text.h"
#include "tests/launch/example.h"

namespace conclave {
namespace {

struct BadRecipe {
  const char* text;
  std::vector<const char*> words;
};

void expect_words(const std::string& message, const std::vector<const char*>& words,
                  const std::string& text) {
  EXPECT_NE(message, "") << "was accepted: " << text;
  for (const char* word : words)
    EXPECT_NE(message.find(word), std::string::npos) << "'" << word << "' is missing from: " << message;
}

TEST(BadRecipes, SayWhatWhereAndWhatIsValid) {
  const std::vector<BadRecipe> table = {
      // Unknown keys: here, elsewhere, far from everything.
      {"model:\n  hidden_sise: 3", {"bad.yaml:2: ", "model.hidden_sise", "did you mean model.hidden_size?"}},
      {"model:\n  moe: {num_expert: 4}", {"bad.yaml:2: ", "did you mean model.moe.num_experts?"}},
      {"model: {num_experts: 4}", {"model.num_experts", "did you mean model.moe.num_experts?"}},
      {"num_expers: 4", {"bad.yaml:1: num_expers", "did you mean model.moe.num_experts?"}},
      {"trianing: {steps: 1}", {"did you mean training?"}},
      {"training: {interval: 1}", {"checkpoint.interval or evaluation.interval or logging.interval"}},
      {"logging: {zzzzzz: 1}",
       {"there is no such key",
        "the keys of logging are interval, dead_expert_steps, samples, profile, tensorboard"}},
      {"data: {train: [{path: a, domain: b}, {path: a, domian: b}]}",
       {"data.train.1.domian", "did you mean data.train.1.domain?"}},
      // Types.
      {"training: {steps: many}", {"bad.yaml:1: training.steps", "'many'", "a whole number"}},
      {"training: {steps: 1e3}", {"'1e3'", "whole number; write 1000"}},
      {"training: {steps: 300.0}", {"write 300"}},
      {"training: {steps: 1.5}", {"'1.5' came, expected a whole number"}},
      {"training: {steps: 1_000}", {"without underscores"}},
      {"training: {steps: 0x10}", {"'0x10'", "whole number"}},
      {"training: {steps: 99999999999999999999}", {"'99999999999999999999'", "whole number"}},
      {"training: {steps: \"3\"}", {"quoted text \"3\"", "without quotes"}},
      {"training: {steps: }", {"nothing came", "whole number"}},
      {"training: {seed: -1}", {"'-1'", "zero or more"}},
      {"training: {steps: [1]}", {"a list came, expected a whole number"}},
      {"training: {steps: {a: 1}}", {"a section of keys came"}},
      {"optimizer: {lr: .nan}", {"optimizer.lr", "'.nan'"}},
      {"optimizer: {lr: inf}", {"'inf'", "finite"}},
      {"optimizer: {lr: 1e999}", {"'1e999'", "a number"}},
      {"optimizer: {betas: 0.9}", {"optimizer.betas", "a list of numbers, for example"}},
      {"optimizer: {betas: [0.9, x]}", {"optimizer.betas.1", "'x'"}},
      {"model: {qk_norm: yes}", {"model.qk_norm", "'yes'", "true or false"}},
      {"model: {qk_norm_over: heads}", {"model.qk_norm_over", "one of head, all_heads"}},
      {"model: {partial_rotary_factor: 0}", {"model.partial_rotary_factor", "more than 0"}},
      {"model: {partial_rotary_factor: 2}", {"model.partial_rotary_factor", "at most 1"}},
      {"model: 3", {"model", "expected a section of keys"}},
      {"[1, 2]", {"the recipe", "a list came, expected a section"}},
      {"data: {train: {path: a, domain: b}}", {"data.train", "expected a list"}},
      {"data: {train: [a]}", {"data.train.0", "'a' came, expected a section"}},
      // Values that one key alone rules out.
      {"training:\n  steps: 0", {"bad.yaml:2: training.steps", "0 came, expected at least 1"}},
      {"model: {vocab_size: 3000000000}", {"at most 2147483647"}},
      {"optimizer: {lr: 0}", {"more than 0"}},
      {"optimizer: {betas: [0.9, 1]}", {"1 came", "less than 1"}},
      {"optimizer: {schedule: {kind: cosin}}", {"'cosin'", "did you mean 'cosine'?"}},
      {"model: {moe: {balance: [{scope: galaxy}]}}",
       {"model.moe.balance.0.scope",
        "one of sequence, micro_batch, group, data_parallel, shuffle, global_batch"}},
      {"model: {moe: {router: {bias: {rate: -1}}}}", {"model.moe.router.bias.rate", "-1"}},
      {"model: {moe: {router: {bias: {scope: group}}}}", {"model.moe.router.bias.scope", "'group'"}},
      {"model: {moe: {router: {pool: {minimum: -1}}}}", {"model.moe.router.pool.minimum", "-1 came"}},
      {"model: {moe: {router: {pool: {size: 4}}}}",
       {"model.moe.router.pool.size", "the keys of model.moe.router.pool are minimum, maximum, evaluation"}},
      {"model: {moe: {balance: [{estimator: oracle}]}}",
       {"model.moe.balance.0.estimator", "one of running, warm, lagged, exact"}},
      {"model: {moe: {balance: [{expert_groups: -1}]}}",
       {"model.moe.balance.0.expert_groups", "-1 came", "at least 0"}},
      {"model: {moe: {balance: [{expert_group: 2}]}}", {"did you mean model.moe.balance.0.expert_groups?"}},
      {"model: {moe: {capacity_factor: -1}}", {"model.moe.capacity_factor", "-1 came", "at least 0"}},
      {"model: {moe: {capacity_factor: .nan}}", {"model.moe.capacity_factor", "'.nan'"}},
      {"training: {device: gpu}", {"training.device", "'gpu'", "one of cpu, emulated, cuda"}},
      {"data: {train: [{path: \"\", domain: a}]}", {"data.train.0.path", "empty"}},
      {"parallel: {zero: 4}", {"at most 1"}},
      {"optimizer: {eps: 1e-39}", {"optimizer.eps", "1e-39 came", "at least 1.1754943508222875e-38", "fp32"}},
      {"optimizer: {eps: 1e-300}", {"optimizer.eps", "at least 1.1754943508222875e-38"}},
      {"model: {rms_norm_eps: 1e-40}", {"model.rms_norm_eps", "fp32"}},
      {"optimizer: {lr: 4e38}", {"optimizer.lr", "at most 3.4028234663852886e+38", "fp32"}},
      {"optimizer: {betas: [1e-40, 0.9]}", {"optimizer.betas", "fp32"}},
      {"output: \"runs/two\\nlines\"",
       {"bad.yaml:1: output", "\"runs/two\\x0alines\"", "without a line break"}},
      {"name: \"a\\rb\"", {"name", "without a line break"}},
      {"data: {train: [{path: \"a\\nb\", domain: c}]}", {"data.train.0.path", "without a line break"}},
      {"data: {train: [{path: a, domain: \"b\\nc\"}]}", {"data.train.0.domain", "without a line break"}},
      {"checkpoint:\n  initialize_from: |\n    a\n",
       {"bad.yaml", "checkpoint.initialize_from", "line break"}},
      // YAML itself.
      {"a: 1\nname: x\na: 2", {"bad.yaml:3", "'a' is there twice", "line 1"}},
      {"model:\n  moe:\n    num_experts: 1\n    num_experts: 2",
       {"bad.yaml:4", "model.moe.num_experts", "line 3"}},
      {"model: {hidden_size: 3", {"bad.yaml:", "not valid YAML"}},
      {"model:\n\thidden_size: 3", {"bad.yaml:2", "not valid YAML"}},
      {"name: *nowhere", {"bad.yaml:1", "not valid YAML"}},
      {"model: &m {moe: *m}", {"bad.yaml:1", "alias"}},
      {"? {a: 1}\n: 2", {"bad.yaml:1", "where a key is expected"}},
      {"name: a\n---\nname: b", {"second YAML document"}},
      {"name: !!int 3", {"tag"}},
      {"name: caf\xe9", {"bad.yaml:1", "UTF-8"}},
      {"name: x\nname2: \xed\xa0\x80", {"bad.yaml:2", "UTF-8"}},
  };
  for (const BadRecipe& bad : table)
    expect_words(request_error([&] { parse_recipe(bad.text, "bad.yaml"); }), bad.words, bad.text);
}

TEST(BadOverrides, NameTheOverride) {
  const std::vector<BadRecipe> table = {
      {"training.step=3", {"override 'training.step=3': ", "did you mean training.steps?"}},
      {"num_experts=8", {"did you mean model.moe.num_experts?"}},
      {"training.steps=x", {"override 'training.steps=x': training.steps", "'x' came"}},
      {"training.steps=", {"nothing came"}},
      {"training.steps=[1", {"override 'training.steps=[1'", "bracket"}},
      {"training.steps.x=1", {"training.steps", "a section of keys came"}},
      {"training=3", {"training", "expected a section"}},
      {"training..steps=3", {"a part of the key is empty"}},
      {"training.steps", {"expected key.path=value"}},
      {"data.train.2.weight=1", {"element '2'", "the list has 2 elements"}},
      {"data.train.x.weight=1", {"element 'x'"}},
      {"data.train.0.wieght=1", {"did you mean data.train.0.weight?"}},
      {"data.train.0=1", {"data.train.0", "expected a section"}},
      {"optimizer.betas.2=1", {"element '2'"}},
      {"a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a=1", {"more than 16 parts"}},
  };
  for (const BadRecipe& bad : table)
    expect_words(request_error([&] { parse_recipe(example_text, "bad.yaml", {bad.text}); }), bad.words,
                 bad.text);
}

TEST(HostileText, IsRefusedAndNothingMore) {
  const auto repeated = [](const std::string& part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
  };
  for (const std::string& text :
       {repeated("[", 10000), repeated("{a: ", 10000), repeated("- ", 10000), repeated("? ", 10000),
        repeated("[", 1000000), std::string("a: ") + repeated("&a [", 5000),
        "name: " + repeated("(", 2000000), std::string("name: \0x", 8), repeated("a.", 40000) + ": 1"})
    EXPECT_NE(request_error([&] { parse_recipe(text, "hostile.yaml"); }), "") << text.substr(0, 40);
}

TEST(HostileText, EveryDamagedExampleIsReadOrRefused) {
  // Whatever a slipped key does to a recipe, the answer is a recipe or a sentence: never another exception or
  // a crash.
  const RandomKey random(7);
  const std::string marks = "[]{}:,-#&*!|>'\"%@`?\n\t .\\0aé";
  int refused = 0;
  for (std::uint64_t trial = 0; trial < 3000; ++trial) {
    std::string text = example_text;
    for (std::uint64_t change = 0; change < 1 + trial % 3; ++change) {
      const std::uint64_t draw = trial * 16 + change * 4;
      const std::size_t at = random.below(draw, text.size());
      const char mark = marks[random.below(draw + 1, marks.size())];
      switch (random.below(draw + 2, 3)) {
        case 0:
          text[at] = mark;
          break;
        case 1:
          text.insert(at, 1, mark);
          break;
        default:
          text.erase(at, 1 + random.below(draw + 3, 5));
      }
    }
    try {
      parse_recipe(text, "damaged.yaml");
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::request) << error.what();
      EXPECT_EQ(std::string(error.what()).rfind("damaged.yaml:", 0), 0u) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace conclave
