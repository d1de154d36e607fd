// Reading recipes that are right: values, defaults, overrides, and the way back through the resolved text.
#include "launch/train/recipe_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "framework/base/random.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/override.h"
#include "tests/launch/example.h"

namespace conclave {
namespace {

TEST(ParseRecipe, ReadsEveryKindOfValue) {
  const Recipe recipe = example_recipe();
  EXPECT_EQ(recipe.name, "quickstart");
  EXPECT_EQ(recipe.model.num_key_value_heads, 2);
  EXPECT_EQ(recipe.model.rms_norm_eps, 1e-6);
  EXPECT_TRUE(recipe.model.moe.router.norm_topk_prob);
  ASSERT_EQ(recipe.data.train.size(), 2u);
  EXPECT_EQ(recipe.data.train[1].path, "data/code");
  EXPECT_EQ(recipe.optimizer.betas, (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(recipe.places.of_key.at("model.head_dim"), "example.yaml:8");
  EXPECT_EQ(recipe.places.of_key.at("data.train.1.domain"), "example.yaml:19");
}

TEST(ParseRecipe, LeavesDefaultsWhereNothingIsSaid) {
  const Recipe defaults;
  EXPECT_EQ(parse_recipe("", "empty.yaml"), defaults);
  EXPECT_EQ(parse_recipe("# only a comment\nmodel:\n", "empty.yaml"), defaults);
  EXPECT_TRUE(parse_recipe("model: {moe: {balance: []}}", "x").model.moe.balance.empty());
}

TEST(ParseRecipe, ReadsNumbersAsYamlWritesThem) {
  EXPECT_EQ(parse_recipe("optimizer: {lr: 3e-3}", "x").optimizer.lr, 3e-3);
  EXPECT_EQ(parse_recipe("optimizer: {lr: +.5}", "x").optimizer.lr, 0.5);
  EXPECT_EQ(parse_recipe("optimizer: {lr: 1}", "x").optimizer.lr, 1.0);
  EXPECT_EQ(parse_recipe("training: {seed: 18446744073709551615}", "x").training.seed, 18446744073709551615u);
  EXPECT_EQ(parse_recipe("name: 123", "x").name, "123");
  EXPECT_EQ(parse_recipe("name: \"null\"", "x").name, "null");
}

TEST(ParseRecipe, FollowsAliases) {
  const Recipe recipe = parse_recipe("data: {train: [&a {path: p, domain: d}], validation: [*a]}", "x");
  ASSERT_EQ(recipe.data.validation.size(), 1u);
  EXPECT_EQ(recipe.data.validation[0], recipe.data.train[0]);
}

TEST(Override, ChangesOneKeyAndNothingElse) {
  Recipe expected = example_recipe();
  expected.model.moe.num_experts = 8;
  EXPECT_EQ(parse_recipe(example_text, "x", {"model.moe.num_experts=8"}), expected);
}

TEST(Override, ReachesIntoLists) {
  Recipe recipe = example_recipe();
  apply_override(recipe, "data.train.1.weight=2.5");
  apply_override(recipe, "optimizer.betas.1=0.99");
  EXPECT_EQ(recipe.data.train[1].weight, 2.5);
  EXPECT_EQ(recipe.data.train[1].path, "data/code");
  EXPECT_EQ(recipe.optimizer.betas, (std::vector<double>{0.9, 0.99}));
}

TEST(Override, AWeightMayBeTheSize) {
  Recipe recipe = example_recipe();
  apply_override(recipe, "data.train.1.weight=size");
  EXPECT_TRUE(std::isinf(recipe.data.train[1].weight));
  EXPECT_NE(to_yaml(recipe).find("weight: size\n"), std::string::npos);
  EXPECT_EQ(parse_recipe(to_yaml(recipe), "x"), recipe);
  for (const char* wrong : {"data.train.1.weight=sizes", "data.train.1.weight=.inf",
                            "data.train.1.weight=inf", "optimizer.lr=size", "data.train.1.weight=0"})
    EXPECT_THROW(apply_override(recipe, wrong), Error) << wrong;
  try {
    apply_override(recipe, "data.train.1.weight=much");
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("expected a number or 'size'"), std::string::npos)
        << error.what();
  }
}

TEST(Override, ReplacesListsAndMergesSections) {
  Recipe recipe = example_recipe();
  apply_override(recipe,
                 "model.moe.balance=[{scope: micro_batch, coefficient: 0.02}, {scope: global_batch}]");
  ASSERT_EQ(recipe.model.moe.balance.size(), 2u);
  EXPECT_EQ(recipe.model.moe.balance[0].scope, BalanceScope::micro_batch);
  EXPECT_EQ(recipe.model.moe.balance[1].coefficient, BalanceRecipe{}.coefficient);
  EXPECT_EQ(recipe.places.of_key.count("model.moe.balance.0.estimator"), 0u)
      << "the place of a replaced element";
  apply_override(recipe, "model.moe.router={z_loss_coefficient: 0}");
  EXPECT_EQ(recipe.model.moe.router.z_loss_coefficient, 0.0);
  EXPECT_EQ(recipe.model.moe.router.kind, RouterKind::softmax);
}

TEST(Override, LaterOnesWin) {
  EXPECT_EQ(parse_recipe("", "x", {"training.steps=5", "training.steps=7"}).training.steps, 7);
}

TEST(Override, IsToldFromAPath) {
  EXPECT_TRUE(is_override("model.moe.num_experts=8"));
  EXPECT_TRUE(is_override("name="));
  EXPECT_FALSE(is_override("runs/lr=3/recipe.yaml"));
  EXPECT_FALSE(is_override("recipe.yaml"));
  EXPECT_FALSE(is_override("=3"));
}

TEST(ToYaml, ReadsBackToTheSameRecipe) {
  const Recipe defaults;
  EXPECT_EQ(parse_recipe(to_yaml(defaults), "x"), defaults);
  const Recipe recipe = example_recipe();
  EXPECT_EQ(parse_recipe(to_yaml(recipe), "x"), recipe);
  EXPECT_EQ(parse_recipe(to_annotated_yaml(recipe), "x"), recipe);
}

/// Fills every key with a random valid value, so that the round trip is tried on all of them.
class Scrambler final : public Visitor {
 public:
  explicit Scrambler(std::uint64_t seed) : random_(seed) {}
  void key(const Key& key) override {
    std::visit([&](const auto& value) { scramble_reference(value, key); }, key.value);
    ASSERT_EQ(complaint(key), "") << key.name;
    ++keys;
  }
  void section(const char*, const char*, const std::function<void()>& inside) override { inside(); }
  void list(const char*, const char*, ListReference& list) override {
    list.clear();
    for (std::uint64_t i = 0, size = random_.below(draw_++, 3) + 1; i < size; ++i) {
      list.append();
      list.describe_element(i, *this);
    }
  }
  int keys = 0;

 private:
  template <class Value>
  void scramble_reference(Value* value, const Key& key) {
    scramble(*value, key);
  }
  void scramble_reference(const WordReference& value, const Key&) {
    const std::vector<std::string> words = value.words();
    ASSERT_TRUE(value.set(words[random_.below(draw_++, words.size())]));
  }
  void scramble(bool& value, const Key&) { value = random_.below(draw_++, 2) == 1; }
  void scramble(std::int64_t& value, const Key& key) {
    const double most = std::min(key.rule.most, 1e9), least = std::max(key.rule.least, -1e9);
    value = static_cast<std::int64_t>(least + (most - least) * random_.uniform(draw_++));
  }
  void scramble(std::uint64_t& value, const Key&) { value = random_.bits(draw_++); }
  void scramble(double& value, const Key& key) {
    const double uniform = random_.uniform(draw_++);
    value = std::isfinite(key.rule.most) ? uniform : std::max(std::exp(80 * uniform - 40), key.rule.least);
  }
  void scramble(std::vector<double>& values, const Key& key) {
    values.resize(2);
    for (double& value : values) scramble(value, key);
  }
  template <class Value>
  void scramble(std::vector<Value>& values, const Key& key) {
    values.resize(random_.below(draw_++, 3) + 1);
    for (Value& value : values) scramble(value, key);
  }
  void scramble(std::string& value, const Key& key) {
    const std::vector<std::string> odd = {"plain",
                                          "a b",
                                          "true",
                                          "~",
                                          "12",
                                          "1e3",
                                          "# no comment",
                                          "- x",
                                          "a: b",
                                          "\"quoted\" \\ 'text'",
                                          "line\nbreak\ttab",
                                          "日本語",
                                          "\x01",
                                          " ends ",
                                          "../up",
                                          "{a: 1}",
                                          "[",
                                          "*x",
                                          "&x",
                                          "!t",
                                          "%",
                                          "@",
                                          "`",
                                          "|",
                                          ">",
                                          "a,b",
                                          "?"};
    const std::vector<std::string>& words = key.rule.words.empty() ? odd : key.rule.words;
    do value = words[random_.below(draw_++, words.size())];
    while (key.rule.one_line && value.find('\n') != std::string::npos);
  }

  RandomKey random_;
  std::uint64_t draw_ = 0;
};

TEST(ToYaml, ReadsBackEveryKeyExactly) {
  const Recipe defaults;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Recipe recipe;
    Scrambler scrambler(seed);
    describe(scrambler, recipe);
    ASSERT_GT(scrambler.keys, 70);
    ASSERT_NE(recipe, defaults);
    ASSERT_EQ(parse_recipe(to_yaml(recipe), "x"), recipe) << to_yaml(recipe);
    ASSERT_EQ(parse_recipe(to_annotated_yaml(recipe), "x"), recipe) << to_annotated_yaml(recipe);
  }
}

TEST(ToYaml, AnnotatesEveryKeyAlsoThoseOfEmptyLists) {
  const Recipe defaults;
  const std::string text = to_annotated_yaml(defaults);
  for (const char* part :
       {"num_experts: 16", "# routed experts of a block [16]", "pattern: \"\"", "lr_scale: 1"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing from\n" << text;
}

TEST(KeyText, GivesOneValueAsItIs) {
  Recipe recipe = example_recipe();
  recipe.output = "a \"b\" \\ #c";
  EXPECT_EQ(key_text(recipe, "output"), recipe.output);
  EXPECT_EQ(key_text(recipe, "data.train.1.path"), "data/code");
  EXPECT_EQ(key_text(recipe, "model.num_key_value_heads"), "2");
  EXPECT_EQ(key_text(recipe, "optimizer.betas"), "[0.9, 0.95]");
  EXPECT_EQ(key_text(recipe, "model.moe.router.norm_topk_prob"), "true");
  for (const char* path : {"outputs", "model", "data.train.7.path", "data.train", ""}) {
    try {
      key_text(recipe, path);
      ADD_FAILURE() << path << " has a value";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::request) << error.what();
    }
  }
}

TEST(LoadRecipe, ReadsAFile) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "conclave_load_recipe_test.yaml";
  std::ofstream(path) << example_text;
  EXPECT_EQ(load_recipe(path.string(), {"training.steps=3"}).training.steps, 3);
  std::filesystem::remove(path);
  EXPECT_NE(request_error([&] { load_recipe(path.string()); }).find("No such file"), std::string::npos);
  EXPECT_NE(request_error([] { load_recipe("/tmp"); }).find("/tmp"), std::string::npos);
}

TEST(Nearest, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("tarin", "train"), 1u);
  EXPECT_EQ(nearest("tarin", {"train", "generate"}), "train");
  EXPECT_EQ(nearest("zzz", {"train", "generate"}), "");
}

TEST(Override, ACommentInItIsNamed) {
  const std::string warning = comment_in_override("name=exp #5");
  for (const char* part : {"'name=exp #5'", "'#5' for a comment", "'name=\"exp #5\"'"})
    EXPECT_NE(warning.find(part), std::string::npos) << warning;
  for (const char* cut :
       {"output=runs/a\t# b", "name=#5", "data.validation=[] # none", "training.steps=5 #x#y"})
    EXPECT_NE(comment_in_override(cut), "") << cut;
  for (const char* whole : {"name=exp#5", "name=\"exp #5\"", "name='exp #5'", "training.steps=5", "name",
                            "data.train=[{path: 'a #1', domain: b}]", "name=[ #"})
    EXPECT_EQ(comment_in_override(whole), "") << whole;
  Recipe recipe;
  apply_override(recipe, "name=\"exp #5\"");
  EXPECT_EQ(recipe.name, "exp #5") << "as the warning advises";
  apply_override(recipe, "optimizer.eps=1.2e-38");
  apply_override(recipe, "optimizer.lr=3e38");
  apply_override(recipe, "optimizer.weight_decay=0");
}

TEST(Override, OneOfTwoLinesIsRefused) {
  for (const char* text :
       {"output=a\nb", "name=a\r\nb", "name=a\n", "name=\na", "name=\"a\nb\"", "training.steps=5\n"}) {
    Recipe recipe;
    try {
      apply_override(recipe, text);
      ADD_FAILURE() << text << " became " << recipe.name << recipe.output;
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::request);
      EXPECT_NE(std::string(error.what()).find("has a line break"), std::string::npos) << error.what();
    }
  }
  Recipe recipe;
  apply_override(recipe, "data.train=[{path: a, domain: b},\n {path: c, domain: d}]");
  EXPECT_EQ(recipe.data.train.size(), 2u) << "a list may have several lines";
}

TEST(Override, NamesOfOtherTrainersAreKnown) {
  for (const auto& [text, key] : {std::pair{"optimizer.learning_rate=1", "optimizer.lr"},
                                  {"model.num_layers=2", "model.num_hidden_layers"},
                                  {"training.micro_batch=2", "training.micro_batch_size"},
                                  {"training.batch_size=2", "training.global_batch_size"},
                                  {"data.seq_len=2", "data.sequence_length"}}) {
    Recipe recipe;
    try {
      apply_override(recipe, text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("did you mean " + std::string(key) + "?"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace conclave
