// The example's router, held to what routers of the house are held to: its gradient against central
// differences in float64, over the token states and every parameter, and scores that depend on directions
// alone.
#include "examples/add_a_router/cosine_router.h"

#include <gtest/gtest.h>

#include "tests/framework/autograd/gradient_check.h"

namespace conclave {
namespace {

using test::normal_tensor;

constexpr std::int64_t tokens = 12, hidden = 6, experts = 5, width = 3, top_k = 2;
constexpr CosineScores::Options options{hidden, experts, width};

ModelInput two_sequences() {
  std::vector<std::int32_t> ids(tokens, 1);
  ids.back() = -1;  // padding
  return {.sequences = 2, .length = tokens / 2, .tokens = Tensor::from(ids, {tokens})};
}

/// Routes x with the given values in place of the router's own parameters.
Routing route(Tape& tape, const Variable& x, const Variable& projection, const Variable& embeddings,
              const Variable& gain) {
  ParameterSet parameters;
  auto scores = std::make_unique<CosineScores>(parameters, "router", options);
  const auto put = [&](std::size_t index, const char* name, const Variable& variable) {
    Parameter& parameter = parameters.all().at(index);
    check(parameter.name == name && parameter.shape == variable.value.shape(), name, " was expected, ",
          parameter.name, " ", parameter.shape, " came");
    parameter.value = variable.value;
    parameter.gradient = variable.gradient;
  };
  put(0, "router.projection.weight", projection);
  put(1, "router.embeddings", embeddings);
  put(2, "router.gain.weight", gain);
  MoeRecipe moe;
  moe.num_experts = experts;
  moe.num_experts_per_tok = top_k;
  const auto self = self_communicator();
  return compose_router(std::move(scores), "router", moe)->route(tape, {x, two_sequences(), *self});
}

std::vector<Tensor> inputs() {
  return {normal_tensor("x", {tokens, hidden}), normal_tensor("projection", {width, hidden}),
          normal_tensor("embeddings", {experts, width}), normal_tensor("gain", {width})};
}

TEST(CosineRouter, GradientEqualsDifferences) {
  // One number that depends on everything a router gives: weights, mean probabilities and log-sum-exp.
  const auto objective = [](Tape& tape, const std::vector<Variable>& in) {
    const Routing routing = route(tape, in[0], in[1], in[2], in[3]);
    return add_losses(
        tape, {weighted_sum(tape, routing.weights, normal_tensor("a", {tokens, top_k})),
               weighted_sum(tape, routing.statistics.probability_sums, normal_tensor("b", {2, experts})),
               weighted_sum(tape, routing.statistics.z_sum, normal_tensor("c", {1}))});
  };
  const test::GradientErrors errors = test::check_gradient(objective, inputs(), test::Seed::one);
  EXPECT_LT(errors.derivative, 1e-7) << errors.where_derivative;
  EXPECT_LT(errors.accumulation, 1e-10) << errors.where_accumulation;
}

TEST(CosineRouter, LengthsDoNotMatter) {
  const std::vector<Tensor> in = inputs();
  const auto weights = [&](double scale_of_tokens, double scale_of_experts) {
    const Tensor x = Tensor::zeros(in[0].shape(), in[0].dtype()),
                 embeddings = Tensor::zeros(in[2].shape(), in[2].dtype());
    kernels_of(x).add_scaled(in[0], scale_of_tokens, x);
    kernels_of(x).add_scaled(in[2], scale_of_experts, embeddings);
    Tape tape(Tape::Mode::forward_only);
    return route(tape, {x, {}}, {in[1], {}}, {embeddings, {}}, {in[3], {}}).weights.value.to_host<double>();
  };
  const std::vector<double> before = weights(1, 1), after = weights(1000, 100);
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(after[i], before[i], 1e-4) << "weight " << i;
}

}  // namespace
}  // namespace conclave
