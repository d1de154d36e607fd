// The gradient check must see mistakes: ops with a planted error, each of a kind that is easily made.
#include "tests/framework/autograd/gradient_check.h"

#include <gtest/gtest.h>

#include <cmath>

namespace conclave::test {
namespace {

enum class Mistake {
  none,
  factor,
  missing_term,
  forgotten_accumulate,
  forgotten_input,
  served_only_together
};

/// y = x^2 * z elementwise, with a mistake in its backward.
Variable square_times(Tape& tape, const Variable& x, const Variable& z, Mistake mistake) {
  const std::int64_t count = x.value.elements();
  Variable y = tape.output(Tensor::empty(x.value.shape(), DType::float64));
  for (std::int64_t i = 0; i < count; ++i) {
    const double v = x.value.data<double>()[i];
    y.value.data<double>()[i] = v * v * z.value.data<double>()[i];
  }
  tape.record("square_times", [=] {
    const Tensor dy = y.gradient.take();
    const auto fill = [&](const Gradient& gradient, auto&& formula) {
      if (!gradient.needed()) return;
      const Gradient::Target target = gradient.target();
      for (std::int64_t i = 0; i < count; ++i) {
        double& to = target.tensor.data<double>()[i];
        const bool keep = target.write == Write::accumulate && mistake != Mistake::forgotten_accumulate;
        to = (keep ? to : 0) +
             dy.data<double>()[i] * formula(x.value.data<double>()[i], z.value.data<double>()[i]);
      }
    };
    const double factor = mistake == Mistake::factor ? 1.9999 : mistake == Mistake::missing_term ? 1 : 2;
    fill(x.gradient, [&](double a, double b) { return factor * a * b; });
    if (mistake == Mistake::forgotten_input) return;
    if (mistake == Mistake::served_only_together && !x.gradient.needed()) return;
    fill(z.gradient, [](double a, double) { return a * a; });
  });
  return y;
}

GradientErrors errors_with(Mistake mistake) {
  return check_gradient(
      [=](Tape& tape, const std::vector<Variable>& in) { return square_times(tape, in[0], in[1], mistake); },
      {normal_tensor("x", {3, 5}), normal_tensor("z", {3, 5})});
}

TEST(GradientCheckSees, NothingWrongInACorrectOp) {
  const GradientErrors errors = errors_with(Mistake::none);
  EXPECT_LT(errors.derivative, 1e-9) << errors.where_derivative;
  EXPECT_LT(errors.accumulation, 1e-14) << errors.where_accumulation;
}

TEST(GradientCheckSees, AFactorThatIsALittleWrong) {
  const GradientErrors errors = errors_with(Mistake::factor);
  EXPECT_GT(errors.derivative, 2e-5);
  EXPECT_LT(errors.accumulation, 1e-14);
}

TEST(GradientCheckSees, AMissingTerm) {
  EXPECT_GT(errors_with(Mistake::missing_term).derivative, 0.3);
}

TEST(GradientCheckSees, AForgottenAccumulate) {
  const GradientErrors errors = errors_with(Mistake::forgotten_accumulate);
  EXPECT_LT(errors.derivative, 1e-9);
  EXPECT_GT(errors.accumulation, 0.3);
}

TEST(GradientCheckSees, AnInputWithoutGradient) {
  EXPECT_GT(errors_with(Mistake::forgotten_input).derivative, 0.3);
}

TEST(GradientCheckSees, AnInputServedOnlyTogetherWithAnother) {
  const GradientErrors errors = errors_with(Mistake::served_only_together);
  EXPECT_LT(errors.derivative, 1e-9);
  EXPECT_GT(errors.accumulation, 0.3);
  EXPECT_EQ(errors.where_accumulation, "the only one asked for, input 1");
}

TEST(GradientCheckSees, AWrongDerivativeInOneElementOfMany) {
  const auto wrong_at_the_end = [](Tape& tape, const std::vector<Variable>& in) {
    Variable y = tape.output(in[0].value.clone());
    tape.record("identity", [y, x_gradient = in[0].gradient] {
      const Tensor dx = y.gradient.take().clone();
      dx.data<double>()[dx.elements() - 1] *= 0.5;
      x_gradient.add(dx);
    });
    return y;
  };
  const GradientErrors errors = check_gradient(wrong_at_the_end, {normal_tensor("x", {300})});
  EXPECT_GT(errors.derivative, 0.1);
  EXPECT_EQ(errors.where_derivative, "input 0 element 299");
  EXPECT_GT(check_gradient(wrong_at_the_end, {normal_tensor("x", {3000})}).derivative, 1e-4)
      << "by directions alone";
}

}  // namespace
}  // namespace conclave::test
