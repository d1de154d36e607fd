// Routing in four steps: scores, masks, selection and weights one after another give, bit by bit, what the
// kernel gives that selects and weighs at once; and a choice with unused slots is weighed by its formula.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/router.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave {
namespace {

constexpr std::int64_t tokens = 24, experts = 12, top_k = 3, hidden = 5;

ModelInput input_with_padding() {
  std::vector<std::int32_t> ids(tokens, 1);
  ids[7] = ids[23] = -1;
  return {.sequences = 3, .length = 8, .tokens = Tensor::from(ids, {tokens})};
}

/// A matrix product, so that the gradient of scores is seen as well.
class Product final : public Scores {
 public:
  explicit Product(const Variable& weight) : weight_(weight) {}
  Variable of(Tape& tape, const RouterInput& input) const override { return linear(tape, input.x, weight_); }

 private:
  Variable weight_;
};

/// Closes expert 4 to every third token.
class EveryThird final : public Mask {
 public:
  void close(const RouterInput&, const Tensor& logits) const override {
    with_float_type(logits.dtype(), [&](auto zero) {
      using T = decltype(zero);
      for (std::int64_t t = 0; t < logits.dim(0); t += 3)
        logits.data<T>()[t * experts + 4] = -std::numeric_limits<T>::infinity();
    });
  }
};

/// Only says what it chooses, so that the weights are a step of their own.
class Chooses final : public Selection {
 public:
  explicit Chooses(const RouteRule& rule) : top_k_(top_k, rule) {}
  std::int64_t slots() const override { return top_k_.slots(); }
  Tensor choose(const Tensor& logits, const RouterInput& input) const override {
    return top_k_.choose(logits, input);
  }

 private:
  TopK top_k_;
};

template <class T>
Tensor as(const Tensor& values) {
  const std::vector<double> wide = values.to_host<double>();
  return Tensor::from(std::vector<T>(wide.begin(), wide.end()), values.shape());
}

/// All numbers that a routing and its backward give.
template <class T>
std::vector<double> numbers_of(std::unique_ptr<Selection> selection, const RouteRule& rule) {
  const Tensor x = as<T>(test::normal_tensor("x", {tokens, hidden})),
               w = as<T>(test::normal_tensor("w", {experts, hidden}));
  const Variable tokens_of{x, Gradient::of(x)}, weight{w, Gradient::of(w)};
  ComposedRouter::Steps steps;
  steps.scores = std::make_unique<Product>(weight);
  steps.masks.push_back(std::make_unique<EveryThird>());
  steps.selection = std::move(selection);
  steps.weights = rule;
  const ModelInput input = input_with_padding();
  const auto self = self_communicator();
  Tape tape;
  const Routing routing = ComposedRouter(std::move(steps)).route(tape, {tokens_of, input, *self});
  std::vector<double> all;
  const auto put = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
  put(routing.experts.to_host<std::int32_t>());
  put(routing.weights.value.to_host<T>());
  put(routing.probabilities.to_host<T>());
  put(routing.statistics.counts.to_host<std::int64_t>());
  put(routing.statistics.chosen.to_host<std::int32_t>());
  put(routing.statistics.probability_sums.value.template to_host<double>());
  put(routing.statistics.z_sum.value.template to_host<double>());
  routing.weights.gradient.add(as<T>(test::normal_tensor("a", {tokens, top_k})));
  routing.statistics.probability_sums.gradient.add(test::normal_tensor("b", {3, experts}));
  routing.statistics.z_sum.gradient.add(test::normal_tensor("c", {1}));
  tape.backward();
  put(tokens_of.gradient.take().template to_host<T>());
  put(weight.gradient.take().template to_host<T>());
  return all;
}

TEST(RoutingSteps, OneAfterAnotherAreTheFusedKernelBitByBit) {
  const Tensor bias =
      Tensor::from(std::vector<double>{0.1, -0.2, 0.3, 0, 0.25, -0.1, 0, 0.4, -0.3, 0.2, 0.1, 0}, {experts});
  for (const auto score : {RouteRule::Score::softmax, RouteRule::Score::sigmoid})
    for (const bool renormalise : {true, false})
      for (const std::int64_t groups : {1, 4})
        for (const bool biased : {false, true}) {
          SCOPED_TRACE(join_text(score == RouteRule::Score::softmax ? "softmax" : "sigmoid", ", renormalise ",
                                 renormalise, ", groups ", groups, ", biased ", biased));
          const RouteRule rule{.score = score,
                               .renormalise = renormalise,
                               .scale = 1.5,
                               .groups = groups,
                               .chosen_groups = groups / 2 + 1,
                               .selection_bias = biased ? bias : Tensor()};
          RouteRule fused = rule;
          fused.chosen_groups = std::min(fused.chosen_groups, groups);
          EXPECT_EQ(numbers_of<float>(std::make_unique<Chooses>(fused), fused),
                    numbers_of<float>(std::make_unique<TopK>(top_k, fused), fused));
          EXPECT_EQ(numbers_of<double>(std::make_unique<Chooses>(fused), fused),
                    numbers_of<double>(std::make_unique<TopK>(top_k, fused), fused));
        }
}

/// Two experts of some tokens, one of the others.
Tensor choice_with_unused_slots() {
  std::vector<std::int32_t> choice;
  for (std::int32_t t = 0; t < tokens; ++t) {
    choice.push_back(t % experts);
    choice.push_back(t % 4 == 1 ? -1 : (t + 5) % experts);
  }
  return Tensor::from(choice, {tokens, 2});
}

TEST(RoutingSteps, AChoiceWithUnusedSlotsIsWeighedByItsFormula) {
  const ModelInput input = input_with_padding();
  const Tensor logits = test::normal_tensor("logits", {tokens, experts}), choice = choice_with_unused_slots();
  const std::vector<double> s = logits.to_host<double>();
  const std::vector<std::int32_t> wanted = choice.to_host<std::int32_t>();
  for (const bool renormalise : {true, false}) {
    Tape tape;
    const RouteRule rule{.renormalise = renormalise, .scale = 2};
    const Routing routing = weigh(tape, {logits, {}}, input.tokens, choice, route_options(input, 2, rule));
    const std::vector<double> weights = routing.weights.value.to_host<double>();
    const std::vector<std::int32_t> chosen = routing.experts.to_host<std::int32_t>();
    std::vector<std::int64_t> counts(3 * experts);
    for (std::size_t t = 0; t < tokens; ++t) {
      double sum = 0, of_chosen = 0;
      const auto q = [&](std::size_t slot) {
        return wanted[slot] < 0 ? 0.0 : std::exp(s[t * experts + static_cast<std::size_t>(wanted[slot])]);
      };
      for (std::size_t e = 0; e < experts; ++e) sum += std::exp(s[t * experts + e]);
      of_chosen = q(2 * t) + q(2 * t + 1);
      for (std::size_t slot = 2 * t; slot < 2 * t + 2; ++slot) {
        const bool padding = t == 7 || t == 23;
        EXPECT_EQ(chosen[slot], padding ? -1 : wanted[slot]);
        EXPECT_NEAR(weights[slot], padding ? 0 : 2 * q(slot) / (renormalise ? of_chosen : sum), 1e-14);
        if (chosen[slot] >= 0) ++counts[t / 8 * experts + static_cast<std::size_t>(chosen[slot])];
      }
    }
    EXPECT_EQ(routing.statistics.counts.to_host<std::int64_t>(), counts);
  }
}

TEST(RoutingSteps, GradientsOfAChoiceWithUnusedSlotsAreThoseOfDifferences) {
  const ModelInput input = input_with_padding();
  for (const auto score : {RouteRule::Score::softmax, RouteRule::Score::sigmoid})
    for (const bool renormalise : {true, false}) {
      const RouteRule rule{.score = score, .renormalise = renormalise, .scale = 2};
      const auto objective = [&](Tape& tape, const std::vector<Variable>& in) {
        const Routing routing =
            weigh(tape, in[0], input.tokens, choice_with_unused_slots(), route_options(input, 2, rule));
        return add_losses(tape, {weighted_sum(tape, routing.weights, test::normal_tensor("a", {tokens, 2})),
                                 weighted_sum(tape, routing.statistics.probability_sums,
                                              test::normal_tensor("b", {3, experts}))});
      };
      const test::GradientErrors errors = test::check_gradient(
          objective, {test::normal_tensor("logits", {tokens, experts})}, test::Seed::one);
      EXPECT_LT(errors.derivative, 1e-7) << errors.where_derivative;
    }
}

}  // namespace
}  // namespace conclave
