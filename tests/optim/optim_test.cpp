#include <gtest/gtest.h>

#include <cmath>

#include "optim/adamw.h"
#include "optim/schedule.h"

namespace conclave {
namespace {

TEST(Schedule, WarmsUpLinearlyAndEndsWhereItShould) {
  ScheduleRecipe schedule{.kind = "cosine", .warmup_steps = 10, .min_lr_ratio = 0.1, .decay_steps = 0};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 9, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 10, 100), 1.0);
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 10 + 89 / 2, 100), 0.55, 0.01);
  schedule.kind = "linear";
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 43, 100), 1 - 0.9 * 33.0 / 89.0, 1e-12);
  schedule.kind = "constant";
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 99, 100), 1.0);
  schedule = {.kind = "wsd", .warmup_steps = 10, .min_lr_ratio = 0.0, .decay_steps = 20};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 79, 100), 1.0);
  EXPECT_NEAR(learning_rate_factor(schedule, 89, 100), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.0, 1e-12);
}

TEST(Groups, PatternsMatchAsUsersExpect) {
  EXPECT_TRUE(matches("*", "anything"));
  EXPECT_TRUE(matches("model.layers.*.mlp.gate.weight", "model.layers.11.mlp.gate.weight"));
  EXPECT_FALSE(matches("model.layers.*.mlp.gate.weight", "model.layers.11.mlp.gate.bias"));
  EXPECT_TRUE(matches("*norm*", "model.layers.0.input_layernorm.weight"));
  EXPECT_TRUE(matches("a*b*c", "aXbYbZc"));
  EXPECT_FALSE(matches("a*b", "abc"));
  EXPECT_FALSE(matches("", "a"));
}

class AdamWTest : public testing::Test {
 protected:
  void SetUp() override {
    parameters_.create("matrix", {2, 3}, {Initializer::Kind::normal, 1.0}, Decay::yes);
    parameters_.create("norm", {3}, {Initializer::Kind::ones}, Decay::no);
    parameters_.create("frozen", {2}, {Initializer::Kind::ones}, Decay::yes);
    recipe_.groups = {{.pattern = "froz*", .frozen = true}, {.pattern = "norm", .lr_scale = 0.5}};
    parameters_.materialize(DType::float64, 7);
    freeze(parameters_, recipe_);
  }
  void set_gradients(double factor) {
    parameters_.clear_gradients();
    for (const Parameter& parameter : parameters_.all()) {
      std::vector<double> values(static_cast<std::size_t>(parameter.shape.elements()));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = factor * (static_cast<double>(i) - 1.5);
      parameter.gradient.add(Tensor::from(values, parameter.shape));
    }
  }
  ParameterSet parameters_;
  OptimizerRecipe recipe_{.lr = 0.01, .weight_decay = 0.1};
};

TEST_F(AdamWTest, EqualsTheFormulaWrittenOutPerElement) {
  const GradientReducer reducer(parameters_, Mesh::alone());
  AdamW optimizer(parameters_, reducer, recipe_);
  std::vector<double> value = parameters_.find("matrix").value.to_host<double>(), m(6), v(6);
  std::vector<double> norm(3, 1.0), nm(3), nv(3);
  for (int t = 1; t <= 5; ++t) {
    set_gradients(t % 2 == 0 ? -0.3 : 1.0);
    optimizer.step(0.01, 0.5);
    const auto update = [&](std::vector<double>& w, std::vector<double>& m1, std::vector<double>& m2,
                            double lr, double decay) {
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double g = 0.5 * (t % 2 == 0 ? -0.3 : 1.0) * (static_cast<double>(i) - 1.5);
        m1[i] = 0.9 * m1[i] + 0.1 * g;
        m2[i] = 0.95 * m2[i] + 0.05 * g * g;
        const double step =
            m1[i] / (1 - std::pow(0.9, t)) / (std::sqrt(m2[i] / (1 - std::pow(0.95, t))) + 1e-8);
        w[i] -= lr * (step + decay * w[i]);
      }
    };
    update(value, m, v, 0.01, 0.1);
    update(norm, nm, nv, 0.005, 0.0);
  }
  const auto result = parameters_.find("matrix").value.to_host<double>();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(result[i], value[i], 1e-12);
  const auto result_norm = parameters_.find("norm").value.to_host<double>();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(result_norm[i], norm[i], 1e-12);
  EXPECT_EQ(parameters_.find("frozen").value.to_host<double>(), (std::vector<double>{1, 1}));
}

TEST_F(AdamWTest, NormCountsEachTrainableElementOnce) {
  set_gradients(1.0);
  double squares = 0;
  for (const int size : {6, 3})
    for (int i = 0; i < size; ++i) squares += (i - 1.5) * (i - 1.5);
  const GradientReducer reducer(parameters_, Mesh::alone());
  EXPECT_NEAR(reducer.norm_of(reducer.squares().item()), std::sqrt(squares), 1e-12);
}

TEST_F(AdamWTest, APatternWithoutAParameterIsAnError) {
  recipe_.groups.push_back({.pattern = "model.nothing.*"});
  try {
    check_groups(parameters_, recipe_);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find("model.nothing.*"), std::string::npos);
  }
}

}  // namespace
}  // namespace conclave
