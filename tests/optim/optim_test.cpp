#include <gtest/gtest.h>

#include <cmath>

#include "framework/recipe/visitor.h"
#include "optim/clipping.h"
#include "optim/groups.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace conclave {
namespace {

TEST(Schedule, WarmsUpLinearlyAndEndsWhereItShould) {
  ScheduleRecipe schedule{
      .kind = ScheduleKind::cosine, .warmup_steps = 10, .min_lr_ratio = 0.1, .decay_steps = 0};
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 9, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 10, 100), 1.0);
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 10 + 89 / 2, 100), 0.55, 0.01);
  schedule.kind = ScheduleKind::linear;
  EXPECT_NEAR(learning_rate_factor(schedule, 99, 100), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate_factor(schedule, 43, 100), 1 - 0.9 * 33.0 / 89.0, 1e-12);
  schedule.kind = ScheduleKind::constant;
  EXPECT_DOUBLE_EQ(learning_rate_factor(schedule, 99, 100), 1.0);
  schedule = {.kind = ScheduleKind::wsd, .warmup_steps = 10, .min_lr_ratio = 0.0, .decay_steps = 20};
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

TEST(Groups, TheFirstMatchSettlesAParameterAndTheRestKeepsTheDefaults) {
  ParameterSet parameters;
  const Parameter& gate = parameters.create("layer.gate.weight", {2}, {}, Decay::yes);
  const Parameter& norm = parameters.create("layer.norm.weight", {2}, {}, Decay::no);
  OptimizerRecipe recipe;
  recipe.weight_decay = 0.1;
  EXPECT_EQ(settings_of(norm, recipe).weight_decay, 0.0);
  recipe.groups = {{.pattern = "*gate*", .lr_scale = 0.5}, {.pattern = "layer.*", .weight_decay = 0.3}};
  EXPECT_EQ(settings_of(gate, recipe).lr_scale, 0.5);
  EXPECT_EQ(settings_of(gate, recipe).weight_decay, 0.1);
  EXPECT_EQ(settings_of(norm, recipe).lr_scale, 1.0);
  EXPECT_EQ(settings_of(norm, recipe).weight_decay, 0.3);
}

TEST(Clipping, ShortensWhatIsTooLongAndNothingElse) {
  EXPECT_EQ(clipping_factor(4.0, 1.0), 0.25);
  EXPECT_EQ(clipping_factor(1.0, 1.0), 1.0);
  EXPECT_EQ(clipping_factor(0.0, 1.0), 1.0);
  EXPECT_EQ(clipping_factor(4.0, 0.0), 1.0);  // no limit
}

/// The words that a recipe may give as optimizer.kind.
class KindWords : public PathVisitor {
 public:
  void key(const Key& key) override {
    if (path_of(key.name) == "kind") words = key.rule.words;
  }
  std::vector<std::string> words;
};

TEST(Optimizers, ARecipeMayNameEachAndNoOther) {
  KindWords schema;
  OptimizerRecipe recipe;
  describe(schema, recipe);
  std::vector<std::string> names;
  for (const OptimizerKind& kind : optimizer_kinds()) names.push_back(kind.name);
  EXPECT_EQ(names, schema.words);
  EXPECT_EQ(optimizer_kind("adamw").name, "adamw");
  try {
    optimizer_kind("adam");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find("\"adam\" came, expected one of adamw"), std::string::npos);
  }
}

TEST(Optimizers, StatesAtTheBeginningAreThoseOfAnOptimizerWithoutParameters) {
  OptimizerRecipe recipe;
  recipe.groups = {{.pattern = "matches.nothing"}};
  for (const DType kept : {DType::float32, DType::float64}) {
    const std::vector<NamedState> states = states_at_beginning(recipe, kept);
    ASSERT_EQ(states.size(), 2u);
    EXPECT_EQ(states[0].name, "moment1");
    EXPECT_EQ(states[1].name, "moment2");
    for (const NamedState& state : states) {
      EXPECT_EQ(state.values.dtype(), kept);
      EXPECT_EQ(state.values.elements(), 0);
    }
  }
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
  const auto optimizer = make_optimizer(parameters_, reducer, recipe_);
  std::vector<double> value = parameters_.find("matrix").value.to_host<double>(), m(6), v(6);
  std::vector<double> norm(3, 1.0), nm(3), nv(3);
  for (int t = 1; t <= 5; ++t) {
    set_gradients(t % 2 == 0 ? -0.3 : 1.0);
    optimizer->step(0.01, 0.5);
    EXPECT_EQ(optimizer->updates(), t);
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

  // The states of the owned parameters one after another; what is frozen has none.
  const std::vector<NamedState> states = optimizer->states();
  ASSERT_EQ(states.size(), 2u);
  const auto expect_state = [&](const NamedState& state, std::vector<double> expected,
                                const std::vector<double>& of_norm) {
    expected.insert(expected.end(), of_norm.begin(), of_norm.end());
    const std::vector<double> values = state.values.to_host<double>();
    ASSERT_EQ(values.size(), expected.size()) << state.name;
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-12) << state.name;
  };
  expect_state(states[0], m, nm);
  expect_state(states[1], v, nv);
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
    make_optimizer(parameters_, GradientReducer(parameters_, Mesh::alone()), recipe_);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find("model.nothing.*"), std::string::npos);
  }
}

}  // namespace
}  // namespace conclave
