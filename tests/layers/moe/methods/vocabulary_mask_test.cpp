// The mask of MaskMoE: which ids are frequent, which experts an id has, what a router does with it, against
// plain loops in float64; mistakes that are planted in the loops are seen. Layouts:
// tests/launch/method_layout_test.cpp.
#include "layers/moe/methods/vocabulary_mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/methods.h"
#include "layers/moe/router.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave {
namespace {

using Numbers = std::vector<double>;

constexpr std::int64_t tokens = 300, hidden = 5, experts = 40, vocabulary = 50;

ModelRecipe recipe_of(std::int64_t visible, std::int64_t top_k, double share = 0.8) {
  ModelRecipe model;
  model.vocab_size = vocabulary;
  model.hidden_size = hidden;
  model.num_hidden_layers = 2;
  model.moe.num_experts = experts;
  model.moe.num_experts_per_tok = top_k;
  model.moe.router.norm_topk_prob = false;
  model.moe.router.vocabulary = {.visible = visible, .frequent_share = share};
  return model;
}

/// Id v stands 1000 / (v + 1) times, but for id 7, which stands nowhere.
std::vector<std::int64_t> falling_counts() {
  std::vector<std::int64_t> counts(vocabulary);
  for (std::int64_t v = 0; v < vocabulary; ++v)
    counts[static_cast<std::size_t>(v)] = v == 7 ? 0 : 1000 / (v + 1);
  return counts;
}

MethodStates learnt(const ModelRecipe& model) {
  const MethodStates states = make_states(model, cpu_device());
  EXPECT_TRUE(wants_text(states));
  learn_from_text(model.moe, falling_counts(), states);
  return states;
}

ModelInput input_of_ids(std::int64_t shift = 0) {
  std::vector<std::int32_t> ids(tokens);
  for (std::size_t t = 0; t < ids.size(); ++t)
    ids[t] =
        t % 11 == 10 ? -1 : static_cast<std::int32_t>((static_cast<std::int64_t>(t) + shift) % vocabulary);
  return {.sequences = 1, .length = tokens, .tokens = Tensor::from(ids, {tokens})};
}

Routing route(const ModelRecipe& model, const MethodStates& states, const Tensor& x, const std::string& name,
              const ModelInput& input = input_of_ids()) {
  ParameterSet parameters;
  const auto router = make_router(parameters, name, model, states.of_layer(0));
  parameters.materialize(DType::float64, 5);
  parameters.all().front().value.copy_from(test::normal_tensor("weight", {experts, hidden}));
  const auto self = self_communicator();
  Tape tape(Tape::Mode::forward_only);
  return router->route(tape, {{x, {}}, input, *self});
}

Tensor states_of_tokens(const char* name = "x") {
  return test::normal_tensor(name, {tokens, hidden});
}

/// Which experts each id has, read off a router that is asked for as many as there may be.
std::vector<std::set<std::int32_t>> experts_of_ids(const ModelRecipe& model, const MethodStates& states,
                                                   const std::string& name = "mlp") {
  ModelRecipe all = model;
  all.moe.num_experts_per_tok = model.moe.router.vocabulary.visible;
  const ModelInput input = input_of_ids();
  const std::vector<std::int32_t> ids = input.tokens.to_host<std::int32_t>(),
                                  chosen = route(all, states, states_of_tokens(), name, input)
                                               .experts.to_host<std::int32_t>();
  const std::size_t slots = chosen.size() / ids.size();
  std::vector<std::set<std::int32_t>> sets(vocabulary);
  for (std::size_t t = 0; t < ids.size(); ++t)
    for (std::size_t k = 0; k < slots; ++k)
      if (ids[t] >= 0 && chosen[t * slots + k] >= 0)
        sets[static_cast<std::size_t>(ids[t])].insert(chosen[t * slots + k]);
  return sets;
}

TEST(VocabularyMask, TheFewestIdsThatMakeUpTheShareAreFrequent) {
  for (const double share : {0.0, 0.3, 0.8, 1.0}) {
    const ModelRecipe model = recipe_of(4, 1, share);
    const Numbers frequent = learnt(model).all.at(0).values.to_host<double>();
    const std::vector<std::int64_t> counts = falling_counts();
    double all = 0, covered = 0, least = 1e9, most = 0;
    for (std::size_t v = 0; v < counts.size(); ++v) {
      all += static_cast<double>(counts[v]);
      if (frequent[v] > 0) {
        covered += static_cast<double>(counts[v]);
        least = std::min(least, static_cast<double>(counts[v]));
      } else {
        most = std::max(most, static_cast<double>(counts[v]));
      }
    }
    EXPECT_GE(covered, share * all);
    if (covered > 0) {
      EXPECT_LT(covered - least, share * all) << "one less would do";
      EXPECT_GE(least, most);
    }
    EXPECT_EQ(frequent[7], 0) << "an id that stands nowhere";
  }
}

TEST(VocabularyMask, IsLearntOnceAndThenKept) {
  const ModelRecipe model = recipe_of(4, 1);
  const MethodStates states = learnt(model);
  EXPECT_FALSE(wants_text(states));
  const Numbers before = states.all.at(0).values.to_host<double>();
  learn_from_text(model.moe, std::vector<std::int64_t>(vocabulary, 1), states);
  EXPECT_EQ(states.all.at(0).values.to_host<double>(), before);
  EXPECT_EQ(states.all.at(0).name, "state/frequent_tokens");
  EXPECT_EQ(states.all.at(0).shape, (Shape{vocabulary}));
}

TEST(VocabularyMask, AFrequentIdHasSeveralExpertsAndEveryOtherHasOneOfItsOwn) {
  const ModelRecipe model = recipe_of(6, 1);
  const MethodStates states = learnt(model);
  const Numbers frequent = states.all.at(0).values.to_host<double>();
  const auto sets = experts_of_ids(model, states);
  std::set<std::int32_t> seen;
  for (std::size_t v = 0; v < sets.size(); ++v) {
    EXPECT_EQ(sets[v].size(), frequent[v] > 0 ? 6u : 1u) << v;
    seen.insert(sets[v].begin(), sets[v].end());
  }
  EXPECT_GT(seen.size(), 30u) << "of 40 experts";
  EXPECT_NE(sets, experts_of_ids(model, states, "other")) << "another layer draws anew";
  EXPECT_EQ(sets, experts_of_ids(model, states));
  // An infrequent id keeps one of the experts that it would have if it were frequent.
  ModelRecipe all_frequent = model;
  all_frequent.moe.router.vocabulary.frequent_share = 1;
  const auto wide = experts_of_ids(all_frequent, learnt(all_frequent));
  for (std::size_t v = 0; v < sets.size(); ++v)
    if (v != 7) {
      EXPECT_TRUE(std::includes(wide[v].begin(), wide[v].end(), sets[v].begin(), sets[v].end())) << v;
    }
  ModelRecipe other_seed = model;
  other_seed.moe.router.vocabulary.seed = 1;
  EXPECT_NE(sets, experts_of_ids(other_seed, states));
}

TEST(VocabularyMask, SetsAreDrawnEvenly) {
  const ModelRecipe model = recipe_of(6, 1, 1.0);
  const MethodStates states = learnt(model);
  Numbers seen(experts);
  constexpr int layers = 40;
  for (int layer = 0; layer < layers; ++layer)
    for (const std::set<std::int32_t>& set : experts_of_ids(model, states, join_text("layer ", layer)))
      for (const std::int32_t expert : set) ++seen[static_cast<std::size_t>(expert)];
  const double expected = layers * (6.0 * (vocabulary - 1) + 1) / experts;
  for (const double count : seen) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
}

enum class Mistake { none, mask_of_the_next_token, softmax_over_all };

/// The largest difference between the router and p = softmax(s + m) with the sets of experts_of_ids.
double difference(std::int64_t top_k, Mistake mistake) {
  const ModelRecipe model = recipe_of(6, top_k);
  const MethodStates states = learnt(model);
  const auto sets = experts_of_ids(model, states);
  const Tensor x = states_of_tokens("y");
  const ModelInput input = input_of_ids(3);
  const Routing routing = route(model, states, x, "mlp", input);
  const Numbers states_in = x.to_host<double>(),
                rows = test::normal_tensor("weight", {experts, hidden}).to_host<double>(),
                weights = routing.weights.value.to_host<double>(),
                sums = routing.statistics.probability_sums.value.to_host<double>();
  const std::vector<std::int32_t> ids = input.tokens.to_host<std::int32_t>(),
                                  chosen = routing.experts.to_host<std::int32_t>();
  Numbers expected_sums(experts);
  double worst = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    if (ids[t] < 0) continue;
    std::size_t id = static_cast<std::size_t>(ids[t]);
    if (mistake == Mistake::mask_of_the_next_token) id = (id + 1) % vocabulary;
    Numbers p(experts);
    double all = 0;
    for (std::int32_t e = 0; e < experts; ++e) {
      double score = 0;
      for (std::size_t i = 0; i < hidden; ++i)
        score += rows[static_cast<std::size_t>(e) * hidden + i] * states_in[t * hidden + i];
      const bool open = sets[id].contains(e);
      if (open) p[static_cast<std::size_t>(e)] = std::exp(score);
      if (open || mistake == Mistake::softmax_over_all) all += std::exp(score);
    }
    std::vector<std::size_t> order(experts);
    for (std::size_t e = 0; e < experts; ++e) order[e] = e;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    for (std::size_t e = 0; e < experts; ++e) expected_sums[e] += p[e] /= all;
    for (std::size_t k = 0; k < static_cast<std::size_t>(top_k); ++k) {
      const std::size_t slot = t * static_cast<std::size_t>(top_k) + k;
      const std::int32_t wanted = p[order[k]] > 0 ? static_cast<std::int32_t>(order[k]) : -1;
      if (chosen[slot] != wanted) return 1;
      worst = std::max(worst, std::abs(weights[slot] - (wanted < 0 ? 0 : p[order[k]])));
    }
  }
  for (std::size_t e = 0; e < experts; ++e) worst = std::max(worst, std::abs(sums[e] - expected_sums[e]));
  return worst;
}

TEST(VocabularyMask, RoutersChooseAmongTheExpertsOfAnIdByTheFormula) {
  for (const std::int64_t top_k : {1, 2, 6}) EXPECT_LT(difference(top_k, Mistake::none), 1e-11) << top_k;
}

TEST(VocabularyMask, MistakesThatArePlantedInTheFormulaAreSeen) {
  for (const std::int64_t top_k : {1, 2})
    for (const Mistake mistake : {Mistake::mask_of_the_next_token, Mistake::softmax_over_all})
      EXPECT_GT(difference(top_k, mistake), 1e-3) << static_cast<int>(mistake);
}

TEST(VocabularyMask, WithAllExpertsVisibleItIsThePlainRouterBitByBit) {
  const ModelRecipe masked = recipe_of(experts, 2, 1.0);
  ModelRecipe plain = masked;
  plain.moe.router.vocabulary = {};
  MethodStates states = make_states(masked, cpu_device());
  learn_from_text(masked.moe, std::vector<std::int64_t>(vocabulary, 1), states);
  const Routing a = route(masked, states, states_of_tokens(), "mlp"),
                b = route(plain, {}, states_of_tokens(), "mlp");
  EXPECT_EQ(a.experts.to_host<std::int32_t>(), b.experts.to_host<std::int32_t>());
  EXPECT_EQ(a.weights.value.to_host<double>(), b.weights.value.to_host<double>());
  EXPECT_EQ(a.statistics.probability_sums.value.to_host<double>(),
            b.statistics.probability_sums.value.to_host<double>());
}

TEST(VocabularyMask, GradientsAreThoseOfDifferences) {
  const ModelRecipe model = recipe_of(6, 2);
  const MethodStates states = learnt(model);
  ParameterSet parameters;
  const auto router = make_router(parameters, "mlp", model, states.of_layer(0));
  parameters.materialize(DType::float64, 5);
  parameters.all().front().value.copy_from(test::normal_tensor("weight", {experts, hidden}));
  const ModelInput input = input_of_ids();
  const auto self = self_communicator();
  const auto objective = [&](Tape& tape, const std::vector<Variable>& in) {
    const Routing routing = router->route(tape, {in[0], input, *self});
    return add_losses(tape, {weighted_sum(tape, routing.weights, test::normal_tensor("a", {tokens, 2})),
                             weighted_sum(tape, routing.statistics.probability_sums,
                                          test::normal_tensor("b", {1, experts})),
                             weighted_sum(tape, routing.statistics.z_sum, Tensor::from(Numbers{0.1}, {1}))});
  };
  const test::GradientErrors errors = test::check_gradient(objective, {states_of_tokens()}, test::Seed::one);
  EXPECT_LT(errors.derivative, 1e-6) << errors.where_derivative;
}

}  // namespace
}  // namespace conclave
