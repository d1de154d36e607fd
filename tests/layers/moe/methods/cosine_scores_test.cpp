// The cosine router of X-MoE against plain loops in float64 and against differences; mistakes that are
// planted in the loops are seen. Layouts: tests/launch/method_layout_test.cpp.
#include "layers/moe/methods/cosine_scores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/router.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave {
namespace {

using Numbers = std::vector<double>;

constexpr std::int64_t tokens = 10, hidden = 6, width = 4, experts = 7, top_k = 2;

/// Two sequences of five tokens, the last of which is padding.
ModelInput two_sequences() {
  std::vector<std::int32_t> ids(tokens, 3);
  ids.back() = -1;
  return {.sequences = 2, .length = 5, .tokens = Tensor::from(ids, {tokens})};
}

ModelRecipe recipe_of(RouterKind kind) {
  ModelRecipe model;
  model.hidden_size = hidden;
  model.moe.num_experts = experts;
  model.moe.num_experts_per_tok = top_k;
  model.moe.router.kind = kind;
  model.moe.router.norm_topk_prob = false;
  model.moe.router.score = CosineScoreRecipe{.width = width, .temperature = 0.3};
  return model;
}

/// A router with parameters of which the learned temperature is not the first one.
struct Routed {
  explicit Routed(RouterKind kind, double temperature = 0.17)
      : model(recipe_of(kind)), router(make_router(parameters, "mlp", model)) {
    parameters.materialize(DType::float64, 5);
    parameters.find("mlp.gate.projection")
        .value.copy_from(test::normal_tensor("projection", {width, hidden}));
    parameters.find("mlp.gate.embeddings")
        .value.copy_from(test::normal_tensor("embeddings", {experts, width}));
    parameters.find("mlp.gate.temperature").value.copy_from(Tensor::from(Numbers{temperature}, {1}));
  }
  Routing route(Tape& tape, const Variable& x) const {
    const ModelInput input = two_sequences();
    const auto self = self_communicator();
    return router->route(tape, {x, input, *self});
  }
  Numbers values_of(const std::string& name) const {
    return parameters.find("mlp.gate." + name).value.to_host<double>();
  }

  ModelRecipe model;
  ParameterSet parameters;
  std::unique_ptr<Router> router;
};

enum class Mistake { none, token_not_normalised, statistics_by_learned_temperature };

/// What the formula gives.
struct Expected {
  std::vector<std::int32_t> chosen;
  Numbers weights, sums = Numbers(2 * experts);
  double z = 0;
};

Expected formula(const Routed& routed, const Numbers& x, RouterKind kind, Mistake mistake) {
  const Numbers projection = routed.values_of("projection"), embeddings = routed.values_of("embeddings");
  const double tau = std::max(routed.values_of("temperature")[0], 1e-4);
  Expected expected;
  for (std::size_t t = 0; t < tokens; ++t) {
    Numbers z(width), cosines(experts);
    double length = 0;
    for (std::size_t w = 0; w < width; ++w) {
      for (std::size_t i = 0; i < hidden; ++i) z[w] += projection[w * hidden + i] * x[t * hidden + i];
      length += z[w] * z[w];
    }
    if (mistake == Mistake::token_not_normalised) length = 1;
    for (std::size_t e = 0; e < experts; ++e) {
      double dot = 0, own = 0;
      for (std::size_t w = 0; w < width; ++w) {
        dot += z[w] * embeddings[e * width + w];
        own += embeddings[e * width + w] * embeddings[e * width + w];
      }
      cosines[e] = dot / std::sqrt(length * own);
    }
    const auto score_of = [&](std::size_t e, double temperature) {
      const double logit = cosines[e] / temperature;
      return kind == RouterKind::sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit);
    };
    const auto total_of = [&](double temperature) {
      double total = 0;
      for (std::size_t e = 0; e < experts; ++e) total += score_of(e, temperature);
      return total;
    };
    const bool padding = t + 1 == tokens;
    std::vector<std::size_t> order(experts);
    for (std::size_t e = 0; e < experts; ++e) order[e] = e;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return cosines[a] > cosines[b]; });
    for (std::size_t k = 0; k < top_k; ++k) {
      expected.chosen.push_back(padding ? -1 : static_cast<std::int32_t>(order[k]));
      const double whole = kind == RouterKind::sigmoid ? 1 : total_of(tau);
      expected.weights.push_back(padding ? 0 : score_of(order[k], tau) / whole);
    }
    if (padding) continue;
    const double counted = mistake == Mistake::statistics_by_learned_temperature ? tau : 0.3;
    double exponentials = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      expected.sums[t / 5 * experts + e] += score_of(e, counted) / total_of(counted);
      exponentials += std::exp(cosines[e] / counted);
    }
    expected.z += std::log(exponentials) * std::log(exponentials);
  }
  return expected;
}

double error_of(const Numbers& got, const Numbers& wanted) {
  double worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) worst = std::max(worst, std::abs(got[i] - wanted[i]));
  return worst;
}

/// The largest difference between the router and the formula; a choice that differs is 1.
double difference(RouterKind kind, Mistake mistake, double temperature = 0.17) {
  const Routed routed(kind, temperature);
  const Tensor x = test::normal_tensor("x", {tokens, hidden});
  Tape tape(Tape::Mode::forward_only);
  const Routing routing = routed.route(tape, {x, {}});
  const Expected expected = formula(routed, x.to_host<double>(), kind, mistake);
  if (routing.experts.to_host<std::int32_t>() != expected.chosen) return 1;
  return std::max({error_of(routing.weights.value.to_host<double>(), expected.weights),
                   error_of(routing.statistics.probability_sums.value.to_host<double>(), expected.sums),
                   std::abs(routing.statistics.z_sum.value.item() - expected.z)});
}

TEST(CosineScores, AreThePublishedFormula) {
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid})
    for (const double temperature : {0.17, 0.3, 2.0, 1e-5})
      EXPECT_LT(difference(kind, Mistake::none, temperature), 1e-12) << temperature;
}

TEST(CosineScores, MistakesThatArePlantedInTheFormulaAreSeen) {
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid})
    for (const Mistake mistake : {Mistake::token_not_normalised, Mistake::statistics_by_learned_temperature})
      EXPECT_GT(difference(kind, mistake), 1e-3) << static_cast<int>(mistake);
}

TEST(CosineScores, HaveParametersOfTheDesignWithTheirFirstValues) {
  ParameterSet parameters;
  const auto router = make_router(parameters, "mlp", recipe_of(RouterKind::softmax));
  parameters.materialize(DType::float32, 5);
  ASSERT_EQ(parameters.all().size(), 3u);
  EXPECT_EQ(parameters.find("mlp.gate.projection").shape, (Shape{width, hidden}));
  EXPECT_EQ(parameters.find("mlp.gate.embeddings").shape, (Shape{experts, width}));
  const Parameter& temperature = parameters.find("mlp.gate.temperature");
  EXPECT_EQ(temperature.shape, (Shape{1}));
  EXPECT_EQ(temperature.value.to_host<float>(), std::vector<float>{0.3f});
  EXPECT_EQ(temperature.decay, Decay::no);
}

TEST(CosineScores, StayBetweenMinusAndPlusOneOverTheTemperature) {
  const Routed routed(RouterKind::softmax, 0.5);
  const Tensor x = test::normal_tensor("x", {tokens, hidden}, 1e6);
  Tape tape(Tape::Mode::forward_only);
  const Routing routing = routed.route(tape, {x, {}});
  for (const double p : routing.probabilities.to_host<double>()) {
    if (p == 0) continue;  // padding
    EXPECT_LE(p, 1 / (1 + (experts - 1) * std::exp(-4.0)) + 1e-12);
    EXPECT_GE(p, std::exp(-4.0) / (experts - 1 + std::exp(-4.0)) - 1e-12);
  }
}

/// Objective over weights and statistics as a function of the states and of every parameter.
class Differentiated {
 public:
  Differentiated(RouterKind kind, bool weights, bool statistics)
      : routed_(kind), weights_(weights), statistics_(statistics) {}

  /// The analytic gradient of `name`, and its central difference along one direction.
  void expect_right(const std::string& name) {
    const Parameter& parameter = routed_.parameters.find("mlp.gate." + name);
    routed_.parameters.clear_gradients();
    {
      Tape tape;
      tape.backward(objective(tape));
    }
    const Numbers gradient = parameter.gradient.finished().to_host<double>();
    const Tensor whole = parameter.value.clone();
    const Numbers at = whole.to_host<double>(),
                  along = test::normal_tensor("along " + name, whole.shape()).to_host<double>();
    const auto value_at = [&](double step) {
      Numbers moved = at;
      for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += step * along[i];
      parameter.value.copy_from(Tensor::from(moved, whole.shape()));
      Tape tape(Tape::Mode::forward_only);
      return objective(tape).value.item();
    };
    constexpr double step = 1e-5;
    const double difference = (value_at(step) - value_at(-step)) / (2 * step);
    parameter.value.copy_from(whole);
    double analytic = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i) analytic += gradient[i] * along[i];
    EXPECT_NEAR(analytic, difference, 1e-7 * (1 + std::abs(difference))) << name;
  }
  double gradient_of_temperature() {
    routed_.parameters.clear_gradients();
    Tape tape;
    tape.backward(objective(tape));
    return routed_.parameters.find("mlp.gate.temperature").gradient.finished().to_host<double>()[0];
  }
  test::GradientErrors errors_of_states() {
    return test::check_gradient(
        [this](Tape& tape, const std::vector<Variable>& in) { return objective(tape, in[0]); },
        {test::normal_tensor("x", {tokens, hidden})}, test::Seed::one);
  }

 private:
  Variable objective(Tape& tape) const {
    return objective(tape, {test::normal_tensor("x", {tokens, hidden}), {}});
  }
  Variable objective(Tape& tape, const Variable& x) const {
    const Routing routing = routed_.route(tape, x);
    std::vector<Variable> terms;
    if (weights_)
      terms.push_back(weighted_sum(tape, routing.weights, test::normal_tensor("a", {tokens, top_k})));
    if (statistics_) {
      terms.push_back(
          weighted_sum(tape, routing.statistics.probability_sums, test::normal_tensor("b", {2, experts})));
      terms.push_back(weighted_sum(tape, routing.statistics.z_sum, test::normal_tensor("c", {1})));
    }
    return add_losses(tape, terms);
  }

  Routed routed_;
  bool weights_, statistics_;
};

TEST(CosineScores, GradientsAreThoseOfDifferences) {
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::sigmoid}) {
    Differentiated both(kind, true, true);
    for (const char* name : {"projection", "embeddings", "temperature"}) both.expect_right(name);
    const test::GradientErrors errors = both.errors_of_states();
    EXPECT_LT(errors.derivative, 1e-7) << errors.where_derivative;
  }
}

TEST(CosineScores, StatisticsDoNotMoveTheTemperature) {
  EXPECT_EQ(Differentiated(RouterKind::softmax, false, true).gradient_of_temperature(), 0);
  EXPECT_NE(Differentiated(RouterKind::softmax, true, false).gradient_of_temperature(), 0);
}

TEST(CosineScores, MasksCloseStatisticsToo) {
  ModelRecipe model = recipe_of(RouterKind::softmax);
  model.moe.router.pool = {.minimum = 2, .maximum = 3, .evaluation = 3};
  ParameterSet parameters;
  const auto router = make_router(parameters, "mlp", model);
  parameters.materialize(DType::float64, 5);
  Batch batch;
  batch.sequences = 1;
  batch.length = tokens;
  batch.tokens.assign(tokens, 1);
  batch.targets.assign(tokens, 1);
  batch.document_start.assign(tokens, 0);
  const ModelInput input = to_device(batch);
  const auto self = self_communicator();
  Tape tape(Tape::Mode::forward_only);
  const Routing routing =
      router->route(tape, {{test::normal_tensor("x", {tokens, hidden}), {}}, input, *self});
  const Numbers sums = routing.statistics.probability_sums.value.to_host<double>();
  EXPECT_EQ(std::count(sums.begin(), sums.end(), 0.0), experts - 3);
  double all = 0;
  for (const double sum : sums) all += sum;
  EXPECT_NEAR(all, tokens, 1e-12);
}

}  // namespace
}  // namespace conclave
