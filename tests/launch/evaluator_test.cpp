// The measures of an evaluation: against plain loops over the routers' inputs, the same on every layout and
// device, and nothing of padding in it.
#include "launch/train/evaluator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "launch/train/model.h"
#include "parallel/agreement.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/launch/evaluation_data.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

class Evaluation : public testing::Test {
 protected:
  void SetUp() override {
    Communicator& world = *test::mpi_world();
    folder_ = all_gather_text(world, scratch_.path().string())[0];
    agree(world, [&] { recipe_ = test::recipe_with_domains(folder_, world.rank() == 0); });
    recipe_.model.moe.first_k_dense_replace = 1;
    recipe_.model.num_hidden_layers = 3;
    recipe_.model.num_key_value_heads = 4;
  }
  void TearDown() override {
    agree(*test::mpi_world(), [] {});
  }  // nobody removes what others read

  static std::vector<DomainResult> evaluate_with(const Recipe& recipe, const Mesh& mesh,
                                                 Device& device = cpu_device()) {
    const Model model(recipe, mesh, device);
    const ValidationData validation(recipe.data, recipe.model.vocab_size);
    return evaluate(
        model.transformer, validation,
        {.micro_batch_size = recipe.training.micro_batch_size, .experts = recipe.model.moe.num_experts},
        mesh);
  }

  ScratchDirectory scratch_;
  std::filesystem::path folder_;
  Recipe recipe_;
};

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i], wanted[i], tolerance) << i;
}

void expect_same(const std::vector<DomainResult>& got, const std::vector<DomainResult>& wanted,
                 double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(got[i].domain, wanted[i].domain);
    EXPECT_EQ(got[i].target_tokens, wanted[i].target_tokens);
    EXPECT_EQ(got[i].tokens, wanted[i].tokens);
    EXPECT_NEAR(got[i].lm_loss, wanted[i].lm_loss, tolerance);
    EXPECT_EQ(got[i].expert_counts, wanted[i].expert_counts);
    expect_near(got[i].mean_probability, wanted[i].mean_probability, tolerance);
    expect_near(got[i].score_sum, wanted[i].score_sum, tolerance);
    expect_near(got[i].entropy, wanted[i].entropy, tolerance);
  }
}

/// Notes what its router was asked.
class ListeningRouter final : public Router {
 public:
  struct Heard {
    std::vector<double> x;  // [tokens, hidden]
    std::vector<std::int32_t> tokens;
  };
  ListeningRouter(std::unique_ptr<Router> router, std::vector<Heard>& heard)
      : router_(std::move(router)), heard_(heard) {}
  Routing route(Tape& tape, const RouterInput& input) const override {
    heard_.push_back({input.x.value.to_host<double>(), input.input.tokens.to_host<std::int32_t>()});
    return router_->route(tape, input);
  }

 private:
  std::unique_ptr<Router> router_;
  std::vector<Heard>& heard_;
};

/// The measures of one layer and domain by plain loops: p, the top k of p, and their sums over real tokens.
DomainResult by_plain_loops(const std::vector<ListeningRouter::Heard>& heard,
                            const std::vector<double>& weight, const Recipe& recipe) {
  const auto hidden = static_cast<std::size_t>(recipe.model.hidden_size),
             experts = static_cast<std::size_t>(recipe.model.moe.num_experts);
  DomainResult result{.expert_counts = std::vector<std::int64_t>(experts),
                      .mean_probability = std::vector<double>(experts),
                      .score_sum = {0.0},
                      .entropy = {0.0}};
  for (const ListeningRouter::Heard& batch : heard)
    for (std::size_t t = 0; t < batch.tokens.size(); ++t) {
      if (batch.tokens[t] < 0) continue;
      ++result.tokens;
      std::vector<double> p(experts);
      for (std::size_t e = 0; e < experts; ++e) {
        double score = 0;
        for (std::size_t i = 0; i < hidden; ++i) score += batch.x[t * hidden + i] * weight[e * hidden + i];
        p[e] = recipe.model.moe.router.kind == RouterKind::sigmoid ? 1 / (1 + std::exp(-score))
                                                                   : std::exp(score);
      }
      const double sum = std::accumulate(p.begin(), p.end(), 0.0);
      std::vector<std::size_t> order(experts);
      std::iota(order.begin(), order.end(), 0u);
      std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
      for (std::int64_t k = 0; k < recipe.model.moe.num_experts_per_tok; ++k) {
        ++result.expert_counts[order[static_cast<std::size_t>(k)]];
        result.score_sum[0] += p[order[static_cast<std::size_t>(k)]] / sum;
      }
      for (std::size_t e = 0; e < experts; ++e) {
        result.mean_probability[e] += p[e] / sum;
        result.entropy[0] -= p[e] / sum * std::log(p[e] / sum);
      }
    }
  const auto tokens = static_cast<double>(result.tokens);
  for (double& value : result.mean_probability) value /= tokens;
  result.score_sum[0] /= tokens;
  result.entropy[0] /= tokens;
  return result;
}

TEST_F(Evaluation, MeasuresWhatPlainLoopsFind) {
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid})
    for (const bool renormalised : {true, false}) {
      Recipe recipe = recipe_;
      recipe.model.moe.router.kind = kind;
      recipe.model.moe.router.norm_topk_prob = renormalised;
      std::vector<std::vector<ListeningRouter::Heard>> heard;  // [layers]
      heard.reserve(2);
      const Model model(recipe, Mesh::alone(), cpu_device(),
                        [&](ParameterSet& parameters, const std::string& name, const ModelRecipe& of_model,
                            const MethodStates& states) {
                          return std::make_unique<ListeningRouter>(
                              make_router(parameters, name, of_model, states), heard.emplace_back());
                        });
      const ValidationData validation(recipe.data, recipe.model.vocab_size);
      const EvaluationOptions options{.micro_batch_size = 5, .experts = 8};
      const auto results = evaluate(model.transformer, validation, options, Mesh::alone());
      ASSERT_EQ(heard.size(), 2u);
      std::size_t batches_before = 0;
      std::int64_t padding = 0;
      for (std::size_t domain = 0; domain < 2; ++domain) {
        const auto of_domain =
            static_cast<std::size_t>((validation.sequences(static_cast<std::int64_t>(domain)) + 4) / 5);
        for (std::size_t layer = 0; layer < 2; ++layer) {
          std::vector<double> weight;
          for (const Parameter& parameter : model.parameters.all())
            if (parameter.name == join_text("model.layers.", layer + 1, ".mlp.gate.weight"))
              weight = parameter.value.to_host<double>();
          ASSERT_EQ(weight.size(), 8u * 32u);
          const auto begin = heard[layer].begin() + static_cast<std::ptrdiff_t>(batches_before);
          const DomainResult expected =
              by_plain_loops({begin, begin + static_cast<std::ptrdiff_t>(of_domain)}, weight, recipe);
          for (auto batch = begin; batch != begin + static_cast<std::ptrdiff_t>(of_domain); ++batch)
            padding += std::count(batch->tokens.begin(), batch->tokens.end(), -1);
          const DomainResult& got = results[domain];
          EXPECT_EQ(got.tokens, expected.tokens);
          for (std::size_t e = 0; e < 8; ++e) {
            EXPECT_EQ(got.expert_counts[layer * 8 + e], expected.expert_counts[e]);
            EXPECT_NEAR(got.mean_probability[layer * 8 + e], expected.mean_probability[e], 1e-12);
          }
          EXPECT_NEAR(got.score_sum[layer], expected.score_sum[0], 1e-12);
          EXPECT_NEAR(got.entropy[layer], expected.entropy[0], 1e-12);
        }
        batches_before += of_domain;
      }
      EXPECT_EQ(batches_before, heard[0].size());
      EXPECT_GT(padding, 20);  // a mistake with padding would be seen
    }
}

TEST_F(Evaluation, IsTheSameOnEveryLayout) {
  const auto ranks = static_cast<std::int64_t>(test::mpi_world()->size());
  for (const std::string router : {"plain", "pools", "sigmoid"}) {
    SCOPED_TRACE(router);
    Recipe recipe = recipe_;
    if (router == "pools") recipe.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 3};
    if (router == "sigmoid") {
      recipe.model.moe.router.kind = RouterKind::sigmoid;
      recipe.model.moe.router.norm_topk_prob = false;
      recipe.model.moe.router.n_group = 4;
      recipe.model.moe.router.topk_group = 2;
      recipe.model.moe.capacity_factor = 0.8;  // what is dropped was chosen all the same
    }
    const auto expected = evaluate_with(recipe, Mesh::alone());
    for (const std::int64_t tensor : {1, 2, 4})
      for (const std::int64_t expert : {1, 2, 4})
        for (const bool sequence : {false, true}) {
          if (ranks % tensor != 0 || ranks % expert != 0 || (sequence && tensor == 1)) continue;
          SCOPED_TRACE(join_text("tensor ", tensor, ", expert ", expert, sequence ? ", sequence" : ""));
          Recipe laid_out = recipe;
          laid_out.parallel = {.tensor = tensor, .expert = expert, .sequence = sequence};
          laid_out.training.micro_batch_size = expert == 1 ? 2 : 3;
          laid_out.training.recompute = expert == 2 ? Recompute::block : Recompute::none;
          const Mesh mesh(test::mpi_world(), degrees_of(laid_out.parallel));
          expect_same(evaluate_with(laid_out, mesh), expected, 1e-10);
        }
  }
}

TEST_F(Evaluation, FilesOfOneDomainAreMeasuredTogether) {
  const Mesh mesh(test::mpi_world(), {});
  const std::vector<DomainResult> apart = evaluate_with(recipe_, mesh);
  Recipe recipe = recipe_;
  for (DatasetRecipe& file : recipe.data.validation) file.domain = "both";
  const std::vector<DomainResult> joined = evaluate_with(recipe, mesh);
  ASSERT_EQ(apart.size(), 2u);
  ASSERT_EQ(joined.size(), 1u);
  const DomainResult &low = apart[0], &high = apart[1], &both = joined[0];
  EXPECT_EQ(both.domain, "both");
  EXPECT_EQ(both.tokens, low.tokens + high.tokens);
  EXPECT_EQ(both.target_tokens, low.target_tokens + high.target_tokens);
  const auto of_low = static_cast<double>(low.target_tokens),
             of_high = static_cast<double>(high.target_tokens);
  EXPECT_NEAR(both.lm_loss, (of_low * low.lm_loss + of_high * high.lm_loss) / (of_low + of_high), 1e-5);
  ASSERT_EQ(both.expert_counts.size(), low.expert_counts.size());
  for (std::size_t i = 0; i < both.expert_counts.size(); ++i)
    EXPECT_EQ(both.expert_counts[i], low.expert_counts[i] + high.expert_counts[i]) << i;
  // A limit is the domain's, whatever the number of its files.
  const Model model(recipe, mesh, cpu_device());
  const auto limited = evaluate(model.transformer, ValidationData(recipe.data, recipe.model.vocab_size),
                                {.most_sequences = 1, .micro_batch_size = 2, .experts = 8}, mesh);
  ASSERT_EQ(limited.size(), 1u);
  EXPECT_LE(limited[0].tokens, recipe.data.sequence_length);
}

TEST_F(Evaluation, IsTheSameOnEveryDevice) {
  recipe_.training.precision = NumberFormat::fp32;
  const auto expected = evaluate_with(recipe_, Mesh::alone());
  const Mesh mesh(test::mpi_world(), {});
  for (Device* device : test::mpi_devices())
    expect_same(evaluate_with(recipe_, mesh, *device), expected, 1e-5);
}

/// A router of one's own that leaves nothing but what training needs.
class TerseRouter final : public Router {
 public:
  explicit TerseRouter(std::unique_ptr<Router> router) : router_(std::move(router)) {}
  Routing route(Tape& tape, const RouterInput& input) const override {
    Routing routing = router_->route(tape, input);
    routing.probabilities = {};
    return routing;
  }

 private:
  std::unique_ptr<Router> router_;
};

TEST_F(Evaluation, ARouterWithoutProbabilitiesHasLossesAndShares) {
  const Model model(recipe_, Mesh::alone(), cpu_device(),
                    [](ParameterSet& parameters, const std::string& name, const ModelRecipe& of_model,
                       const MethodStates& states) {
                      return std::make_unique<TerseRouter>(make_router(parameters, name, of_model, states));
                    });
  const auto got = evaluate(model.transformer, ValidationData(recipe_.data, recipe_.model.vocab_size),
                            {.micro_batch_size = recipe_.training.micro_batch_size, .experts = 8},
                            Mesh::alone()),
             wanted = evaluate_with(recipe_, Mesh::alone());
  for (std::size_t domain = 0; domain < 2; ++domain) {
    EXPECT_EQ(got[domain].lm_loss, wanted[domain].lm_loss);
    EXPECT_EQ(got[domain].expert_counts, wanted[domain].expert_counts);
    for (std::size_t layer = 0; layer < 2; ++layer) {
      EXPECT_TRUE(std::isnan(got[domain].score_sum[layer]));
      EXPECT_TRUE(std::isnan(got[domain].entropy[layer]));
    }
  }
}

TEST_F(Evaluation, ADomainWithoutATargetIsLeftOutOfTheMeanAndNamed) {
  const std::string bare = folder_ / "bare";
  agree(*test::mpi_world(), [&] {
    if (test::mpi_world()->rank() != 0) return;
    TokenFileWriter writer(bare, 64);
    for (const std::int32_t token : {3, 9, 27, 17}) writer.append_document({&token, 1});
    writer.finish({.tokenizer = "bytes", .fingerprint = "bytes", .vocab_size = 64});
  });
  const Mesh mesh(test::mpi_world(), {});
  const auto without = evaluate_with(recipe_, mesh);
  EXPECT_EQ(domains_without_targets(without), "");
  recipe_.data.validation.insert(recipe_.data.validation.begin(), {.path = bare, .domain = "bare"});
  const auto results = evaluate_with(recipe_, mesh);
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].target_tokens, 0);
  EXPECT_TRUE(std::isnan(results[0].lm_loss));
  EXPECT_EQ(results[0].tokens, 3);
  EXPECT_NEAR(mean_over_domains(results), mean_over_domains(without), 1e-12);
  EXPECT_EQ(domains_without_targets(results).find("The mean leaves out bare, whose text holds no target"),
            0u);
  EXPECT_TRUE(std::isnan(mean_over_domains({results[0]})));
}

TEST_F(Evaluation, ADenseModelHasLossesAlone) {
  recipe_.model.moe.first_k_dense_replace = 3;
  const auto results = evaluate_with(recipe_, Mesh::alone());
  ASSERT_EQ(results.size(), 2u);
  EXPECT_GT(results[0].lm_loss, 1.0);
  EXPECT_TRUE(results[0].expert_counts.empty());
  EXPECT_TRUE(results[0].score_sum.empty());
}

}  // namespace
}  // namespace conclave
