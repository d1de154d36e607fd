// The float64 gradient check of every differentiable op, and of the compositions that a mixture of experts
// makes.
#include <gtest/gtest.h>

#include <algorithm>

#include "framework/autograd/ops/attention.h"
#include "framework/autograd/ops/elementwise.h"
#include "framework/autograd/ops/linear.h"
#include "framework/autograd/ops/reciprocal.h"
#include "framework/autograd/ops/routing.h"
#include "framework/autograd/ops/vocabulary.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave::test {
namespace {

using Inputs = const std::vector<Variable>&;

void expect_right(const Differentiable& function, const std::vector<Tensor>& inputs,
                  Seed seed = Seed::random) {
  const GradientErrors errors = check_gradient(function, inputs, seed);
  EXPECT_LT(errors.derivative, 1e-7) << errors.where_derivative;
  EXPECT_LT(errors.accumulation, 1e-12) << errors.where_accumulation;
}

Tensor integers(const std::vector<std::int32_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

TEST(OpGradient, Add) {
  expect_right([](Tape& tape, Inputs in) { return add(tape, in[0], in[1]); },
               {normal_tensor("a", {3, 4}), normal_tensor("b", {3, 4})});
  expect_right([](Tape& tape, Inputs in) { return add(tape, in[0], in[0]); }, {normal_tensor("a", {3, 4})});
}

TEST(OpGradient, Swiglu) {
  expect_right([](Tape& tape, Inputs in) { return swiglu(tape, in[0], in[1]); },
               {normal_tensor("gate", {5, 7}, 2), normal_tensor("up", {5, 7})});
  expect_right([](Tape& tape, Inputs in) { return swiglu(tape, in[0], in[0]); },
               {normal_tensor("gate", {2, 3})});
}

TEST(OpGradient, RmsNorm) {
  const auto norm = [](Tape& tape, Inputs in) { return rms_norm(tape, in[0], in[1], 1e-3); };
  expect_right(norm, {normal_tensor("x", {5, 6}), normal_tensor("weight", {6})});
  expect_right(norm, {normal_tensor("x", {2, 3, 2, 4}), normal_tensor("weight", {4})});  // per head
  expect_right(norm, {normal_tensor("x", {4, 1}), normal_tensor("weight", {1})});
  expect_right(norm, {normal_tensor("x", {131, 5}), normal_tensor("weight", {5})});  // two chunks of dweight
}

TEST(OpGradient, SpreadReciprocal) {
  const Tensor above = Tensor::from(std::vector<double>{0.7}, {1}),
               below = Tensor::from(std::vector<double>{0.2}, {1});
  for (const Tensor& x : {above, below})
    expect_right([](Tape& tape, Inputs in) { return spread_reciprocal(tape, in[0], 5, 1.5, 0.4); }, {x});
}

TEST(OpGradient, Linear) {
  const auto product = [](Tape& tape, Inputs in) { return linear(tape, in[0], in[1]); };
  expect_right(product, {normal_tensor("x", {5, 3}), normal_tensor("weight", {4, 3})});
  expect_right(product, {normal_tensor("x", {1, 1}), normal_tensor("weight", {1, 1})});
  expect_right(product, {normal_tensor("x", {0, 3}), normal_tensor("weight", {4, 3})});
  expect_right(product, {normal_tensor("x", {70, 65}), normal_tensor("weight", {31, 65})});
}

TEST(OpGradient, GroupedLinear) {
  for (const std::vector<std::int64_t>& offsets :
       {std::vector<std::int64_t>{0, 0, 3, 3, 8}, {0, 0, 0, 8, 8}, {0, 0, 0, 0, 0}, {0, 2, 4, 6, 8}}) {
    const Tensor ends = Tensor::from(offsets, {5});
    expect_right([&](Tape& tape, Inputs in) { return grouped_linear(tape, in[0], in[1], ends); },
                 {normal_tensor("x", {offsets.back(), 3}), normal_tensor("weight", {4, 5, 3})});
  }
}

TEST(OpGradient, Embedding) {
  const Tensor tokens = integers({3, -1, 0, 3, 3, 6, -1});
  expect_right([&](Tape& tape, Inputs in) { return embedding(tape, tokens, in[0]); },
               {normal_tensor("weight", {7, 4})});
}

TEST(OpGradient, Rope) {
  const Tensor positions = integers({0, 1, 5, 2, 900});
  for (const std::int64_t rotary_width : {6, 4, 2})
    expect_right(
        [&](Tape& tape, Inputs in) { return rope(tape, in[0], positions, {.theta = 10000}, rotary_width); },
        {normal_tensor("x", {5, 2, 6})});
  const RopeFrequencies stretched{
      .theta = 10000, .scaling = RopeFrequencies::Scaling::llama3, .factor = 8, .original_positions = 64};
  expect_right([&](Tape& tape, Inputs in) { return rope(tape, in[0], positions, stretched, 6); },
               {normal_tensor("x", {5, 2, 6})});
}

TEST(OpGradient, AddBias) {
  for (const std::int64_t rows : {0, 1, 300})
    expect_right([](Tape& tape, Inputs in) { return add_bias(tape, in[0], in[1]); },
                 {normal_tensor("x", {rows, 3}), normal_tensor("bias", {3})});
}

/// A token sees its document up to itself; starts: the column where each token's document begins.
KeyRanges causal(const std::vector<std::int32_t>& starts, std::int64_t sequences) {
  const std::int64_t length = static_cast<std::int64_t>(starts.size()) / sequences;
  std::vector<std::int32_t> columns;
  for (std::int64_t t = 0; t < sequences * length; ++t)
    columns.push_back(static_cast<std::int32_t>(t % length));
  return {Tensor::from(starts, {sequences, length}), Tensor::from(columns, {sequences, length})};
}

KeyRanges ranges(const std::vector<std::int32_t>& first, const std::vector<std::int32_t>& last) {
  const Shape shape{1, static_cast<std::int64_t>(first.size())};
  return {Tensor::from(first, shape), Tensor::from(last, shape)};
}

TEST(OpGradient, Attention) {
  const KeyRanges seen = causal({0, 0, 2, 2, 2, 5, 0, 0, 0, 0, 4, 5}, 2);
  for (const std::int64_t kv_heads : {4, 2, 1})
    expect_right([&](Tape& tape, Inputs in) { return attention(tape, in[0], in[1], in[2], seen, 2); },
                 {normal_tensor("query", {2, 6, 8}), normal_tensor("key", {2, 6, kv_heads * 2}),
                  normal_tensor("value", {2, 6, kv_heads * 2})});
}

TEST(OpGradient, AttentionOverSeveralBlocks) {
  std::vector<std::int32_t> starts(130);
  for (int t = 0; t < 130; ++t) starts[static_cast<std::size_t>(t)] = t < 50 ? 0 : t < 120 ? 50 : t;
  const KeyRanges seen = causal(starts, 1);
  expect_right([&](Tape& tape, Inputs in) { return attention(tape, in[0], in[1], in[2], seen, 4); },
               {normal_tensor("query", {1, 130, 8}), normal_tensor("key", {1, 130, 4}),
                normal_tensor("value", {1, 130, 4})});
}

TEST(OpGradient, AttentionOfOneTensorToItself) {
  const KeyRanges seen = causal({0, 0, 0, 0}, 1);
  expect_right([&](Tape& tape, Inputs in) { return attention(tape, in[0], in[0], in[0], seen, 3); },
               {normal_tensor("x", {1, 4, 3})});
}

TEST(OpGradient, AttentionOfValuesWiderAndNarrowerThanHeads) {
  const KeyRanges seen = causal({0, 0, 2, 2, 2, 5, 0, 0, 0, 0, 4, 5}, 2);
  for (const std::int64_t value_width : {1, 3, 6})
    expect_right([&](Tape& tape, Inputs in) { return attention(tape, in[0], in[1], in[2], seen, 2); },
                 {normal_tensor("query", {2, 6, 8}), normal_tensor("key", {2, 6, 4}),
                  normal_tensor("value", {2, 6, 2 * value_width})});
}

/// Each as queries of two heads over one head of as many keys as the test says.
TEST(OpGradient, AttentionOverRanges) {
  const auto check = [](const KeyRanges& seen, std::int64_t keys) {
    expect_right([&](Tape& tape, Inputs in) { return attention(tape, in[0], in[1], in[2], seen, 2); },
                 {normal_tensor("query", {1, seen.first.dim(1), 4}), normal_tensor("key", {1, keys, 2}),
                  normal_tensor("value", {1, keys, 3})});
  };
  check(ranges({0, 0, 0, 1, 2, 3}, {0, 1, 2, 3, 4, 5}), 6);   // windows of three
  check(ranges({0, 0, 0, 0, 1, 2}, {-1, 0, 0, 1, 2, 3}), 6);  // ends before the query; the first is empty
  check(ranges({4, 1, 2, 0, 5, 2}, {3, 3, 1, 5, 5, -1}), 6);  // in no order, and half of them empty
  check(ranges({0, 3, 5}, {6, 7, 8}), 9);                     // more keys than queries
  check(ranges({0, 1, 0, 1, 0}, {0, 1, 1, 0, 1}), 2);         // fewer
  std::vector<std::int32_t> first(140), last(140);
  for (int t = 0; t < 140; ++t) {  // several blocks, of which the second sees nothing
    first[static_cast<std::size_t>(t)] = std::max(0, t - 9);
    last[static_cast<std::size_t>(t)] = t / 64 == 1 ? -1 : t;
  }
  check(ranges(first, last), 150);
}

TEST(OpGradient, AttentionToNothingIsZero) {
  Tape tape;
  const auto variable = [](const char* name, const Shape& shape) {
    const Tensor value = normal_tensor(name, shape);
    return Variable{value, Gradient::of(value)};
  };
  const Variable query = variable("query", {1, 3, 4}), key = variable("key", {1, 5, 2}),
                 value = variable("value", {1, 5, 3});
  const Variable out = attention(tape, query, key, value, ranges({1, 2, 0}, {0, -1, -1}), 2);
  EXPECT_EQ(out.value.to_host<double>(), std::vector<double>(18));
}

TEST(OpGradient, AttentionRefusesKeysThatAreNotThere) {
  Tape tape;
  const Variable x{normal_tensor("x", {1, 2, 4}), {}};
  for (const auto& seen : {ranges({0, 0}, {1, 2}), ranges({0, -1}, {0, 1})}) {
    try {
      attention(tape, x, x, x, seen, 4);
      FAIL() << "a key that is not there was read";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("but there are 2 keys"), std::string::npos) << error.what();
    }
  }
}

/// All three results of a router in one scalar. Logits are drawn apart from ties by far more than the check's
/// steps.
TEST(OpGradient, Route) {
  const Tensor logits = normal_tensor("logits", {6, 4}, 2), tokens = integers({4, 1, -1, 2, 9, 3});
  const Tensor bias = Tensor::from(std::vector<double>{0.3, -0.2, 0.15, -0.4}, {4});
  std::vector<RouteRule> rules;
  for (const auto score : {RouteRule::Score::softmax, RouteRule::Score::sigmoid})
    for (const bool renormalise : {false, true}) {
      rules.push_back({.score = score, .renormalise = renormalise});
      rules.push_back({.score = score, .renormalise = renormalise, .scale = 2.5, .selection_bias = bias});
      rules.push_back({.score = score, .renormalise = renormalise, .groups = 2, .chosen_groups = 1});
    }
  for (const RouteRule& rule : rules)
    for (const std::int64_t top_k : {1, 2, 4}) {
      if (top_k > 4 / rule.groups * rule.chosen_groups) continue;
      const RouteOptions options{.top_k = top_k, .rule = rule, .sequences = 2};
      const auto routed = [&](Tape& tape, Inputs in) { return route(tape, in[0], tokens, options); };
      expect_right([&](Tape& tape, Inputs in) { return routed(tape, in).weights; }, {logits});
      expect_right([&](Tape& tape, Inputs in) { return routed(tape, in).statistics.probability_sums; },
                   {logits});
      expect_right([&](Tape& tape, Inputs in) { return routed(tape, in).statistics.z_sum; }, {logits});
      expect_right(
          [&](Tape& tape, Inputs in) {
            const Routing routing = routed(tape, in);
            return add_losses(
                tape, {weighted_sum(tape, routing.weights, normal_tensor("w", {6, top_k})),
                       weighted_sum(tape, routing.statistics.probability_sums, normal_tensor("p", {2, 4})),
                       weighted_sum(tape, routing.statistics.z_sum, normal_tensor("z", {1}))});
          },
          {logits});
    }
}

RowOrder order_with_holes() {
  const Tensor experts = Tensor::from(std::vector<std::int32_t>{2, 0, -1, 2, 0, 3, 2, -1, -1, -1}, {5, 2});
  return kernels_of(experts).sort_by_expert(experts, 4);
}

TEST(OpGradient, GatherRows) {
  const RowOrder order = order_with_holes();
  expect_right([&](Tape& tape, Inputs in) { return permute_rows(tape, in[0], order); },
               {normal_tensor("x", {5, 3})});
}

TEST(OpGradient, CombineRows) {
  const RowOrder order = order_with_holes();
  expect_right([&](Tape& tape, Inputs in) { return combine_rows(tape, in[0], in[1], order); },
               {normal_tensor("rows", {6, 3}), normal_tensor("weights", {5, 2})});
}

TEST(OpGradient, WeightedSumAndAddLosses) {
  const Tensor factors = normal_tensor("factors", {2, 3});
  expect_right([&](Tape& tape, Inputs in) { return weighted_sum(tape, in[0], factors); },
               {normal_tensor("x", {2, 3})});
  expect_right(
      [](Tape& tape, Inputs in) {
        return add_losses(tape, {in[0], in[1], in[0]});
      },
      {normal_tensor("a", {1}), normal_tensor("b", {1})});
}

TEST(OpGradient, LinearCrossEntropy) {
  const CrossEntropyOptions options{.loss_scale = 0.25, .z_scale = 0.01};
  const Tensor few = integers({3, -1, 0, 6, 2});
  expect_right(
      [&](Tape& tape, Inputs in) { return linear_cross_entropy(tape, in[0], in[1], few, options).objective; },
      {normal_tensor("x", {5, 3}), normal_tensor("weight", {7, 3})}, Seed::one);
  std::vector<std::int32_t> many;
  for (int t = 0; t < 513; ++t) many.push_back(t % 6 - 1);
  const Tensor targets = integers(many);  // two chunks of logits
  expect_right(
      [&](Tape& tape, Inputs in) {
        return linear_cross_entropy(tape, in[0], in[1], targets, options).objective;
      },
      {normal_tensor("x", {513, 3}), normal_tensor("weight", {5, 3})}, Seed::one);
}

TEST(OpGradient, LinearCrossEntropyRefusesAnotherFactor) {
  Tape tape;
  const Tensor x = normal_tensor("x", {2, 3}), weight = normal_tensor("weight", {4, 3});
  const CrossEntropy loss =
      linear_cross_entropy(tape, {x, Gradient::of(x)}, {weight, Gradient::of(weight)}, integers({1, 2}), {});
  loss.objective.gradient.add(Tensor::from(std::vector<double>{0.5}, {1}));
  EXPECT_THROW(tape.backward(), Error);
}

TEST(OpGradient, TheVocabularyRefusesIdsOutside) {
  Tape tape;
  const Variable x{normal_tensor("x", {2, 3}), {}}, weight{normal_tensor("weight", {4, 3}), {}};
  EXPECT_THROW(embedding(tape, integers({0, 4}), weight), Error);
  EXPECT_THROW(embedding(tape, integers({0, -2}), weight), Error);
  EXPECT_THROW(linear_cross_entropy(tape, x, weight, integers({4, 1}), {}), Error);
  EXPECT_NO_THROW(linear_cross_entropy(tape, x, weight, integers({3, -1}), {}));
}

/// Gather, grouped products around SwiGLU, and the weighted sum over each token's experts.
Variable expert_mlp(Tape& tape, const Variable& x, const Variable& weights, const RowOrder& order,
                    Inputs matrices) {
  const Variable rows = permute_rows(tape, x, order);
  const Variable gate = grouped_linear(tape, rows, matrices[0], order.offsets);
  const Variable up = grouped_linear(tape, rows, matrices[1], order.offsets);
  const Variable down = grouped_linear(tape, swiglu(tape, gate, up), matrices[2], order.offsets);
  return combine_rows(tape, down, weights, order);
}

TEST(CompositionGradient, ExpertMlp) {
  const RowOrder order = order_with_holes();
  expect_right(
      [&](Tape& tape, Inputs in) {
        return expert_mlp(tape, in[0], in[1], order, {in[2], in[3], in[4]});
      },
      {normal_tensor("x", {5, 3}), normal_tensor("weights", {5, 2}), normal_tensor("gate", {4, 4, 3}),
       normal_tensor("up", {4, 4, 3}), normal_tensor("down", {4, 3, 4})});
}

/// Router, experts, residual and losses; the same block once more inside recompute() must differentiate
/// alike.
TEST(CompositionGradient, RoutedBlockWithAndWithoutRecompute) {
  const Tensor tokens = integers({4, 1, -1, 2, 9, 3}), targets = integers({1, 0, -1, 2, 2, 1});
  const auto block = [&](Tape& tape, Inputs in) {
    const Variable normed = rms_norm(tape, in[0], in[1], 1e-3);
    const Routing routing = route(tape, linear(tape, normed, in[2]), tokens, {.top_k = 2, .sequences = 2});
    const RowOrder order = kernels_of(routing.experts).sort_by_expert(routing.experts, 4);
    const Variable mixed = expert_mlp(tape, normed, routing.weights, order, {in[3], in[4], in[5]});
    return std::vector<Variable>{add(tape, in[0], mixed), routing.statistics.probability_sums,
                                 routing.statistics.z_sum};
  };
  const auto objective = [&](Tape& tape, Inputs in, const std::vector<Variable>& out) {
    const CrossEntropy loss =
        linear_cross_entropy(tape, out[0], in[6], targets, {.loss_scale = 0.2, .z_scale = 1e-3});
    return add_losses(tape,
                      {loss.objective, weighted_sum(tape, out[1], normal_tensor("balance", {2, 4}, 0.1)),
                       weighted_sum(tape, out[2], normal_tensor("z", {1}, 0.01))});
  };
  const std::vector<Tensor> inputs{normal_tensor("x", {6, 3}),      normal_tensor("norm", {3}),
                                   normal_tensor("router", {4, 3}), normal_tensor("gate", {4, 4, 3}),
                                   normal_tensor("up", {4, 4, 3}),  normal_tensor("down", {4, 3, 4}),
                                   normal_tensor("head", {5, 3})};
  expect_right([&](Tape& tape, Inputs in) { return objective(tape, in, block(tape, in)); }, inputs,
               Seed::one);
  expect_right(
      [&](Tape& tape, Inputs in) {
        return objective(tape, in, recompute(tape, in, [&](Tape& inner, Inputs again, SegmentRun) {
                           return block(inner, again);
                         }));
      },
      inputs, Seed::one);
}

}  // namespace
}  // namespace conclave::test
