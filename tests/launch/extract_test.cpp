// Extraction of experts: the kept ones are those of a greedy choice found another way, the smaller model
// computes what the whole one does with the other experts masked, and with all experts kept nothing changes.
#include "launch/tools/convert/extract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/tools/convert/expert_choice.h"
#include "launch/train/evaluator.h"
#include "launch/train/model.h"
#include "parallel/agreement.h"
#include "tests/launch/convert_models.h"
#include "tests/launch/evaluation_data.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using Kept = std::vector<std::vector<std::int32_t>>;  // [layers]; empty: all experts

/// The whole model with logits of -infinity for all but some experts.
class MaskedRouter final : public Router {
 public:
  MaskedRouter(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
               const MethodStates& states, const std::vector<std::int32_t>& kept)
      : gate_(parameters, name + ".gate", model.hidden_size, model.moe.num_experts, model.initializer_range,
              Parallelism::per_rank(), Precision::full),
        model_(model),
        kept_(kept),
        states_(states) {}  // loaded later
  Routing route(Tape& tape, const RouterInput& seen) const override {
    const ModelInput& input = seen.input;
    const Variable logits = gate_.forward(tape, seen.x);
    if (kept_.empty())
      return conclave::route(
          tape, logits, input.tokens,
          route_options(input, model_.moe.num_experts_per_tok, route_rule(model_.moe, states_)));
    std::vector<double> values = logits.value.to_host<double>();
    const auto experts = static_cast<std::size_t>(model_.moe.num_experts);
    std::vector<bool> is_kept(experts);
    for (const std::int32_t expert : kept_) is_kept[static_cast<std::size_t>(expert)] = true;
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!is_kept[i % experts]) values[i] = -std::numeric_limits<double>::infinity();
    MethodStates states = states_;
    for (MethodState& state : states.all) {  // what is masked must not win by its bias
      std::vector<double> of_expert = state.values.to_host<double>();
      for (std::size_t e = 0; e < experts; ++e)
        if (!is_kept[e]) of_expert[e] = -std::numeric_limits<double>::infinity();
      state.values = Tensor::from(of_expert, state.shape);
    }
    MoeRecipe rule = model_.moe;
    rule.router.n_group = rule.router.topk_group = 1;
    return conclave::route(tape, tape.output(Tensor::from(values, logits.value.shape())), input.tokens,
                           route_options(input,
                                         std::min<std::int64_t>(model_.moe.num_experts_per_tok,
                                                                static_cast<std::int64_t>(kept_.size())),
                                         route_rule(rule, states)));
  }

 private:
  Linear gate_;
  ModelRecipe model_;
  std::vector<std::int32_t> kept_;
  MethodStates states_;
};

std::vector<DomainResult> evaluate_masked(const fs::path& checkpoint, const Recipe& recipe,
                                          const Kept& kept) {
  std::size_t layer = 0;
  Model model(recipe, Mesh::alone(), cpu_device(),
              [&](ParameterSet& parameters, const std::string& name, const ModelRecipe& of_model,
                  const MethodStates& states) {
                return std::make_unique<MaskedRouter>(parameters, name, of_model, states, kept.at(layer++));
              });
  load_model(CheckpointReader(checkpoint), model);
  return evaluate(
      model.transformer, ValidationData(recipe.data, recipe.model.vocab_size),
      {.micro_batch_size = recipe.training.micro_batch_size, .experts = recipe.model.moe.num_experts},
      Mesh::alone());
}

std::vector<DomainResult> evaluate_run(const fs::path& run) {
  const CheckpointReader checkpoint(*find_checkpoint(run).path);
  const Recipe recipe = recipe_of(checkpoint);
  Model model(recipe);
  load_model(checkpoint, model);
  return evaluate(
      model.transformer, ValidationData(recipe.data, recipe.model.vocab_size),
      {.micro_batch_size = recipe.training.micro_batch_size, .experts = recipe.model.moe.num_experts},
      Mesh::alone());
}

/// The `count` experts with the largest mean probability in a layer.
std::vector<std::int32_t> largest(const DomainResult& result, std::size_t layer, std::size_t experts,
                                  std::size_t count) {
  const auto begin = result.mean_probability.begin() + static_cast<std::ptrdiff_t>(layer * experts);
  std::vector<std::int32_t> order(experts);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return begin[a] > begin[b]; });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

Kept kept_of(const fs::path& run) {
  Kept kept;
  const Json account = json_of(run / "extracted.json");
  for (const Json& layer : account["layers"])
    kept.push_back(layer["experts"].get<std::vector<std::int32_t>>());
  return kept;
}

class Extract : public testing::Test {
 protected:
  void SetUp() override {
    Communicator& world = *test::mpi_world();
    folder_ = all_gather_text(world, scratch_.path().string())[0];
    agree(world, [&] { recipe_ = test::recipe_with_domains(folder_, world.rank() == 0); });
    recipe_.data.tokenizer = "bytes";
    recipe_.model.vocab_size = 264;  // of bytes; the text uses the first 64
    recipe_.model.moe.first_k_dense_replace = 1;
    recipe_.model.num_hidden_layers = 4;
    recipe_.output = (folder_ / "whole").string();
  }
  void TearDown() override {
    agree(*test::mpi_world(), [] {});
  }  // nobody removes what others read

  /// A checkpoint of random weights, written by rank 0.
  fs::path save_whole() const {
    const fs::path run = folder_ / "whole";
    agree(*test::mpi_world(), [] {});  // nobody reads the one before any more
    agree(*test::mpi_world(), [&] {
      if (test::mpi_world()->rank() == 0) save(recipe_, run);
    });
    return checkpoint_path(run / "checkpoints", 3);
  }
  /// Measured on the held-out text, all of it, so that evaluate() sees the same.
  Recipe extract(const fs::path& checkpoint, const std::string& domain, std::int64_t experts,
                 const std::string& name) {
    said_.clear();
    return extract_experts({.checkpoint = checkpoint,
                            .domain = domain,
                            .experts = experts,
                            .calibrate_on_training = false,
                            .sequences = 0,
                            .run = folder_ / name,
                            .overrides = {}},
                           *test::mpi_world(), [this](const std::string& line) { said_ += line; });
  }

  ScratchDirectory scratch_;
  fs::path folder_;
  Recipe recipe_;
  std::string said_;  // by the last extraction
};

std::vector<RouterRecipe> routers() {
  return {{},
          {.norm_topk_prob = false},
          {.kind = RouterKind::sigmoid,
           .norm_topk_prob = false,
           .routed_scaling_factor = 1.5,
           .bias = {.rate = 0.01}},
          {.kind = RouterKind::sigmoid, .n_group = 4, .topk_group = 2, .bias = {.rate = 0.01}}};
}

TEST_F(Extract, ChoosesGreedilyAndComputesWhatMaskingDoes) {
  int differs_from_all_at_once = 0;
  for (const RouterRecipe& router : routers())
    for (const std::int64_t experts : {1, 3, 4}) {
      recipe_.model.moe.router = router;
      const fs::path checkpoint = save_whole();
      const std::string name =
          join_text("few-", experts, "-", router.kind, router.norm_topk_prob, router.n_group);
      const Recipe smaller = extract(checkpoint, "low", experts, name);
      EXPECT_EQ(smaller.model.moe.num_experts, experts);
      EXPECT_EQ(smaller.model.moe.num_experts_per_tok, std::min<std::int64_t>(2, experts));

      const Json account = json_of(folder_ / name / "extracted.json");
      // The greedy choice by evaluating the whole model with masks, one layer after another.
      Kept expected(3), at_once;
      for (std::size_t layer = 0; layer < 3; ++layer) {
        const auto results = evaluate_masked(checkpoint, recipe_, expected);
        if (layer == 0)
          for (std::size_t other = 0; other < 3; ++other)
            at_once.push_back(largest(results[0], other, 8, static_cast<std::size_t>(experts)));
        for (std::size_t e = 0; e < 8; ++e)
          EXPECT_NEAR(account["layers"][layer]["scores"][e].get<double>(),
                      results[0].mean_probability[layer * 8 + e], 1e-12)
              << name;
        expected[layer] = largest(results[0], layer, 8, static_cast<std::size_t>(experts));
      }
      EXPECT_EQ(kept_of(folder_ / name), expected) << name;
      differs_from_all_at_once += at_once != expected;

      const auto masked = evaluate_masked(checkpoint, recipe_, expected), got = evaluate_run(folder_ / name);
      ASSERT_EQ(got.size(), 2u);
      for (std::size_t domain = 0; domain < 2; ++domain) {
        EXPECT_NEAR(got[domain].lm_loss, masked[domain].lm_loss, 1e-10) << name;
        for (std::size_t layer = 0; layer < 3; ++layer)
          for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e)
            EXPECT_EQ(got[domain].expert_counts[layer * static_cast<std::size_t>(experts) + e],
                      masked[domain].expert_counts[layer * 8 + static_cast<std::size_t>(expected[layer][e])]);
      }
    }
  EXPECT_GE(differs_from_all_at_once, 3);  // or choosing all layers at once would not be seen
}

TEST_F(Extract, AllExpertsAreTheSameModelBitByBit) {
  for (const RouterRecipe& router : routers()) {
    recipe_.model.moe.router = router;
    const fs::path checkpoint = save_whole();
    const std::string name = join_text("all-", router.kind, router.norm_topk_prob, router.n_group);
    const Recipe same = extract(checkpoint, "high", 8, name);
    EXPECT_EQ(same.model, recipe_.model);
    expect_same_tensors<double>(checkpoint, checkpoint_path(folder_ / name / "checkpoints", 0), "model");
    const auto before = evaluate_run(folder_ / "whole"), after = evaluate_run(folder_ / name);
    for (std::size_t domain = 0; domain < 2; ++domain) {
      EXPECT_EQ(after[domain].lm_loss, before[domain].lm_loss);
      EXPECT_EQ(after[domain].expert_counts, before[domain].expert_counts);
    }
  }
}

TEST_F(Extract, EndsPoolsAndGroups) {
  const fs::path plain = save_whole();
  extract(plain, "low", 3, "plain");
  const Kept kept = kept_of(folder_ / "plain");
  const auto expected = evaluate_run(folder_ / "plain");
  recipe_.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 2};
  recipe_.model.moe.balance = {{.coefficient = 0.02}, {.coefficient = 0.05, .expert_groups = 4}};
  EXPECT_EQ(said_.find("end here"), std::string::npos);
  recipe_.model.moe.capacity_factor = 1.5;
  const Recipe smaller = extract(save_whole(), "low", 3, "pools");  // of the same weights
  expect_words(said_, {"model.moe.router.pool) end here", "model.moe.capacity_factor) ends here",
                       "expert_groups in model.moe.balance) end here"});
  EXPECT_EQ(said_.find("num_experts_per_tok"), std::string::npos);
  EXPECT_EQ(smaller.model.moe.router.pool, PoolRecipe{});
  EXPECT_EQ(smaller.model.moe.balance, (std::vector<BalanceRecipe>{{.coefficient = 0.02}}));
  EXPECT_EQ(kept_of(folder_ / "pools"), kept);
  const auto got = evaluate_run(folder_ / "pools");
  for (std::size_t domain = 0; domain < 2; ++domain) EXPECT_EQ(got[domain].lm_loss, expected[domain].lm_loss);
  recipe_.model.moe.router.n_group = 4;
  extract(save_whole(), "low", 1, "one");
  expect_words(said_, {"n_group) end here", "model.moe.num_experts_per_tok becomes 1"});
}

TEST_F(Extract, FindsTheExpertsThatADomainUses) {
  // The first number of a token's state says its domain and nothing changes it before the router, which sends
  // the one domain to experts 1 and 5 and the other to 2 and 6.
  recipe_.model.moe.first_k_dense_replace = 0;
  recipe_.model.num_hidden_layers = 1;
  recipe_.model.moe.num_shared_experts = 0;
  const Model model(recipe_);
  CheckpointWriter writer(folder_ / "whole/checkpoints", 3);
  for (const Parameter& parameter : model.parameters.all()) {
    std::vector<double> values = parameter.value.to_host<double>();
    if (parameter.name.ends_with("embed_tokens.weight"))
      for (std::size_t token = 0; token < 64; ++token) values[token * 32] = token < 32 ? 2 : -2;
    if (parameter.name.ends_with("o_proj.weight")) std::fill(values.begin(), values.end(), 0.0);
    if (parameter.name.ends_with(".mlp.gate.weight")) {
      std::fill(values.begin(), values.end(), 0.0);
      for (const std::size_t expert : {1, 5}) values[expert * 32] = 3;
      for (const std::size_t expert : {2, 6}) values[expert * 32] = -3;
    }
    writer.add("model/" + parameter.name, dims_of(parameter.shape), values.data());
  }
  writer.set("recipe", to_yaml(recipe_));
  agree(*test::mpi_world(), [&] {
    if (test::mpi_world()->rank() == 0) writer.commit();
  });
  const fs::path checkpoint = checkpoint_path(folder_ / "whole/checkpoints", 3);
  extract(checkpoint, "low", 2, "low-2");
  extract(checkpoint, "high", 2, "high-2");
  EXPECT_EQ(kept_of(folder_ / "low-2"), (Kept{{1, 5}}));
  EXPECT_EQ(kept_of(folder_ / "high-2"), (Kept{{2, 6}}));
  const auto whole = evaluate_run(folder_ / "whole"), low = evaluate_run(folder_ / "low-2"),
             masked = evaluate_masked(checkpoint, recipe_, {{1, 5}});
  for (std::size_t domain = 0; domain < 2; ++domain)
    EXPECT_NEAR(low[domain].lm_loss, masked[domain].lm_loss, 1e-10);
  const auto own = static_cast<double>(whole[0].expert_counts[1] + whole[0].expert_counts[5]);
  EXPECT_GT(own / (2 * static_cast<double>(whole[0].tokens)), 0.6);
}

TEST_F(Extract, ReadsTheSequencesThatWereAskedFor) {
  const auto of = [&](std::int64_t sequences, int rank, int ranks) {
    std::vector<std::int32_t> tokens;
    for (const Batch& batch : text_of_domain(recipe_.data.train, recipe_, "high", sequences, rank, ranks)) {
      EXPECT_LE(batch.sequences, 2);
      EXPECT_EQ(batch.tokens.size(), static_cast<std::size_t>(batch.sequences * 12));
      EXPECT_EQ(batch.document_start.size(), batch.tokens.size());
      tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
    }
    return tokens;
  };
  const std::vector<std::int32_t> all = of(0, 0, 1);
  EXPECT_EQ(of(1000, 0, 1), all);
  EXPECT_EQ(of(5, 0, 1).size(), 5u * 12u);
  std::vector<std::int32_t> joined = of(0, 0, 2), other = of(0, 1, 2), sorted = all;
  joined.insert(joined.end(), other.begin(), other.end());
  std::sort(joined.begin(), joined.end());
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(joined, sorted);
}

TEST_F(Extract, TheRunSaysWhereItComesFrom) {
  recipe_.model.moe.capacity_factor = 1.5;
  recipe_.parallel.expert = 4;  // of a run on four ranks; three experts could not be shared out so
  recipe_.training.global_batch_size = 8;
  const fs::path checkpoint = save_whole();
  const Recipe smaller = extract_experts({.checkpoint = checkpoint,
                                          .domain = "high",
                                          .experts = 3,
                                          .sequences = 4,
                                          .run = {},
                                          .overrides = {"optimizer.lr=0.0001"}},
                                         *test::mpi_world(), silent);
  const fs::path run = folder_ / "whole-high-3";
  EXPECT_EQ(smaller.output, run.string());
  EXPECT_EQ(smaller.optimizer.lr, 0.0001);
  EXPECT_EQ(smaller.model.moe.capacity_factor, 0);
  EXPECT_EQ(smaller.parallel, ParallelRecipe{});
  const Json account = json_of(run / "extracted.json");
  EXPECT_EQ(account["source"], checkpoint.string());
  EXPECT_EQ(account["domain"], "high");
  EXPECT_EQ(account["calibration"], "train");
  EXPECT_EQ(account["sequences"], 4);
  EXPECT_EQ(account["source_experts"], 8);
  EXPECT_EQ(account["experts"], 3);
  ASSERT_EQ(account["layers"].size(), 3u);
  EXPECT_EQ(account["layers"][0]["block"], 1);
  EXPECT_EQ(account["layers"][0]["scores"].size(), 8u);
  double sum = 0;
  for (const Json& score : account["layers"][0]["scores"]) sum += score.get<double>();
  EXPECT_NEAR(sum, 1, 1e-12);
  const CheckpointReader reader(checkpoint_path(run / "checkpoints", 0));
  EXPECT_EQ(Json::parse(reader.text("extracted")), account);
  EXPECT_EQ(reader.describe("model/model.layers.1.mlp.gate.weight").dims, (Dims{3, 32}));
  EXPECT_EQ(reader.describe("model/model.layers.3.mlp.experts.down_proj.weight").dims, (Dims{3, 32, 16}));
  EXPECT_EQ(reader.describe("optimizer/moment1/model.layers.1.mlp.gate.weight").dims, (Dims{3, 32}));
}

TEST_F(Extract, WhatCannotBeIsASentence) {
  const fs::path checkpoint = save_whole();
  expect_words(sentence_of(Fault::request, [&] { extract(checkpoint, "middle", 2, "a"); }),
               {"middle", "low, high"});
  expect_words(sentence_of(Fault::request, [&] { extract(checkpoint, "low", 9, "a"); }),
               {"--experts 9", "1 to 8"});
  expect_words(sentence_of(Fault::request, [&] { extract(checkpoint, "low", 0, "a"); }), {"--experts 0"});
  expect_words(sentence_of(Fault::request, [&] { extract(checkpoint, "low", 2, "whole"); }),
               {"whole", "is there already"});
  expect_words(sentence_of(Fault::request,
                           [&] {
                             extract_experts({.checkpoint = checkpoint,
                                              .domain = "low",
                                              .experts = 2,
                                              .run = folder_ / "a",
                                              .overrides = {"model.moe.num_experts_per_tok=1"}},
                                             *test::mpi_world(), silent);
                           }),
               {"what the weights mean"});
  EXPECT_FALSE(fs::exists(folder_ / "a"));
  recipe_.training.precision = NumberFormat::fp32;
  recipe_.model.initializer_range = 1e38;  // some weights are drawn beyond the largest number
  const fs::path broken = save_whole();
  expect_words(sentence_of(Fault::numeric, [&] { extract(broken, "low", 2, "a"); }), {"not finite"});
  EXPECT_FALSE(fs::exists(folder_ / "a"));
  recipe_.training.precision = NumberFormat::fp64;
  recipe_.model.initializer_range = 0.02;
  recipe_.model.moe.first_k_dense_replace = 4;
  const fs::path dense = save_whole();
  expect_words(sentence_of(Fault::request, [&] { extract(dense, "low", 2, "a"); }), {"dense model"});
}

}  // namespace
}  // namespace conclave
