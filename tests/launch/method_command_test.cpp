// Routers of methods as users meet them: a run of each resumes bit-equal, is measured and generates; what
// cannot be is refused in a sentence.
#include <algorithm>
#include <fstream>

#include "framework/data/token_file.h"
#include "framework/store/checkpoint_file.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

const std::string brief = "training.steps=8 checkpoint.interval=4 training.precision=fp64 ";
const std::string cosine = brief + "'model.moe.router.score={kind: cosine, width: 8}' ";
const std::string masked =
    brief + "model.moe.router.vocabulary.visible=2 model.moe.router.vocabulary.frequent_share=0.7 ";

class MethodCommand : public Command {
 protected:
  static fs::path checkpoint(const std::string& output, int step) {
    return folder_ / output / "checkpoints" / ("step-0000000" + std::to_string(step));
  }
  static void expect_refused(const std::string& arguments, const std::string& sentence, int ranks = 1) {
    const Outcome outcome = conclave_command(arguments, ranks);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, sentence), 1u) << outcome.output;
  }
  static void expect_recipe_refused(const std::string& overrides, const std::string& sentence) {
    for (const int ranks : {1, 2})
      expect_refused("train " + path("recipe.yaml") + " output=" + path("refused") + " " + overrides,
                     sentence, ranks);
  }
  static void expect_resumes(const std::string& overrides, int ranks) {
    const std::string whole = "whole" + std::to_string(ranks), parts = "parts" + std::to_string(ranks);
    fs::remove_all(folder_ / whole);
    fs::remove_all(folder_ / parts);
    Outcome outcome = train(whole, overrides, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    fs::copy(folder_ / whole, folder_ / parts, fs::copy_options::recursive);
    fs::remove_all(checkpoint(parts, 8));
    outcome = train(parts, overrides, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("Resuming after step 4"), std::string::npos) << outcome.output;
    EXPECT_EQ(metrics(whole), metrics(parts));
  }
  static void expect_used_but_for_export_and_extract(const std::string& output,
                                                     const std::string& why_no_export,
                                                     const std::string& why_no_extract) {
    const Outcome generated = conclave_command("generate " + path(output) + " --prompt 12 --tokens 5"),
                  evaluated = conclave_command("evaluate " + path(output));
    EXPECT_EQ(generated.exit_code, 0) << generated.output;
    EXPECT_EQ(evaluated.exit_code, 0) << evaluated.output;
    expect_refused("export --arch qwen3_moe " + path(output) + " " + path("exported"), why_no_export);
    expect_refused("extract " + path(output) + " --domain letters --experts 2 output=" + path("extracted"),
                   why_no_extract);
  }
  static std::vector<double> numbers(const std::string& output, const char* key) {
    std::vector<double> all;
    for (const Json& line : metrics(output))
      if (line.contains("grad_norm") && line.contains(key)) all.push_back(line[key].get<double>());
    return all;
  }
};

TEST_F(MethodCommand, TheCosineRouterTrainsResumesAndSaysItsTemperature) {
  for (const int ranks : {1, 2}) expect_resumes(cosine, ranks);
  const std::vector<double> temperatures = numbers("whole1", "router_temperature");
  ASSERT_EQ(temperatures.size(), 8u);
  EXPECT_EQ(temperatures.front(), 0.3);
  EXPECT_NE(temperatures.back(), 0.3);
  ASSERT_EQ(train("plain", brief).exit_code, 0);
  EXPECT_TRUE(numbers("plain", "router_temperature").empty());
  EXPECT_NE(numbers("plain", "lm_loss"), numbers("whole1", "lm_loss"));
  EXPECT_LT(numbers("whole1", "lm_loss").back(), 0.98 * numbers("whole1", "lm_loss").front());
  const CheckpointReader reader(checkpoint("whole1", 4));
  for (const char* name : {"projection", "embeddings", "temperature"})
    EXPECT_TRUE(reader.contains(std::string("model/model.layers.0.mlp.gate.") + name)) << name;
  expect_used_but_for_export_and_extract("whole1", "its routers score by cosine",
                                         "experts can be extracted from models whose routers score linearly");
}

TEST_F(MethodCommand, TheMaskByTokenIdTrainsResumesAndKeepsItsCounts) {
  for (const int ranks : {1, 2}) expect_resumes(masked, ranks);
  // The counts of the token files in plain loops.
  std::vector<std::int64_t> count(264);
  std::int64_t all = 0;
  for (const char* domain : {"numbers", "letters"}) {
    const TokenFile file(path(domain), 264);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(file.tokens()));
    file.read(0, file.tokens(), ids.data());
    for (const std::int32_t id : ids) ++count[static_cast<std::size_t>(id)];
    all += file.tokens();
  }
  const std::vector<double> frequent =
      CheckpointReader(checkpoint("whole2", 4)).read_all<double>("state/frequent_tokens");
  ASSERT_EQ(frequent.size(), count.size());
  std::int64_t covered = 0, least = all, most = 0;
  for (std::size_t id = 0; id < count.size(); ++id) {
    if (frequent[id] > 0) {
      covered += count[id];
      least = std::min(least, count[id]);
    } else {
      most = std::max(most, count[id]);
    }
  }
  EXPECT_GE(static_cast<double>(covered), 0.7 * static_cast<double>(all));
  EXPECT_LT(static_cast<double>(covered - least), 0.7 * static_cast<double>(all));
  EXPECT_GE(least, most);
  EXPECT_EQ(CheckpointReader(checkpoint("whole1", 8)).read_all<double>("state/frequent_tokens"), frequent);

  // A run that begins with these parameters on other text does not count again.
  const Outcome other =
      train("other", masked + "checkpoint.initialize_from=" + path("whole1") +
                         " 'data.train=[{path: " + path("letters") + ", domain: letters}]'");
  ASSERT_EQ(other.exit_code, 0) << other.output;
  EXPECT_EQ(CheckpointReader(checkpoint("other", 8)).read_all<double>("state/frequent_tokens"), frequent);
  ASSERT_EQ(
      train("alone", masked + "'data.train=[{path: " + path("letters") + ", domain: letters}]'").exit_code,
      0);
  EXPECT_NE(CheckpointReader(checkpoint("alone", 8)).read_all<double>("state/frequent_tokens"), frequent);

  expect_used_but_for_export_and_extract("whole1", "its tokens have experts by their ids",
                                         "where tokens have experts by their ids");
  expect_refused("evaluate " + path("whole1") +
                     " model.moe.router.vocabulary.visible=0 "
                     "checkpoint.accept_changes=[model.moe.router.vocabulary.visible]",
                 "would be lost");
}

TEST_F(MethodCommand, WhatCannotBeIsRefused) {
  const std::string visible = "model.moe.router.vocabulary.visible";
  expect_recipe_refused(visible + "=5", visible + ": 5 came, expected at most model.moe.num_experts: 4");
  expect_refused("train " + path("recipe.yaml") + " output=" + path("refused") + " " + visible + "=5",
                 visible + ": 5 came", 2);
  expect_recipe_refused(visible + "=1",
                        visible + ": 1 came, expected at least model.moe.num_experts_per_tok: 2");
  expect_recipe_refused("model.moe.router.vocabulary.frequent_share=1.5",
                        "model.moe.router.vocabulary.frequent_share: 1.5 came");
  expect_recipe_refused(visible + "=2 model.moe.router.n_group=2 model.moe.router.topk_group=2",
                        visible + ": a mask by token id came with model.moe.router.n_group: 2");
  expect_recipe_refused(visible + "=2 'model.moe.router.pool={minimum: 2, maximum: 3, evaluation: 2}'",
                        visible + ": a mask by token id came with model.moe.router.pool");
  expect_recipe_refused(visible + "=2 model.moe.capacity_factor=1",
                        visible + ": a mask by token id came with model.moe.capacity_factor: 1");
  expect_recipe_refused("'model.moe.router.score={kind: cosine, temperature: 0}'",
                        "model.moe.router.score.temperature: 0 came");
  expect_recipe_refused("'model.moe.router.score={kind: cosine, width: 0}'",
                        "model.moe.router.score.width: 0 came");
  expect_recipe_refused("model.moe.router.score=cosin", "did you mean 'cosine'?");
  expect_recipe_refused("model.moe.router.score.width=4", "there is no such key where the kind is linear");
}

}  // namespace
}  // namespace conclave
