#include "tests/framework/autograd/gradient_check.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/base/random.h"

namespace conclave::test {
namespace {

constexpr int directions = 4;
constexpr std::int64_t one_by_one_below = 400;  // input elements
// The five-point formula errs by step^4 and by rounding / step: both about 1e-12 here.
constexpr double step = 2e-4;
constexpr double negligible = 1e-3;  // gradients below this count as this large

using Vectors = std::vector<std::vector<double>>;

class Checker {
 public:
  Checker(const Differentiable& function, const std::vector<Tensor>& inputs, Seed seed)
      : function_(function), inputs_(inputs) {
    Tape tape(Tape::Mode::forward_only);
    const Tensor output = function(tape, variables({})).value;
    weights_ = normal_tensor("output weights", output.shape());
    if (seed == Seed::one) weights_ = Tensor::from(std::vector<double>{1.0}, output.shape());
  }

  GradientErrors run() {
    const Vectors gradient = check_storage();
    check_other_ways(gradient);
    for (int d = 0; d < directions; ++d) {
      Vectors direction;
      for (std::size_t i = 0; i < inputs_.size(); ++i)
        direction.push_back(
            normal_tensor(join_text("direction ", d, i), inputs_[i].shape()).to_host<double>());
      compare_slope(gradient, direction, 0, join_text("direction ", d));
    }
    std::int64_t total = 0;
    for (const Tensor& input : inputs_) total += input.elements();
    if (total > one_by_one_below) return errors_;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      double squares = 0;
      for (const double g : gradient[i]) squares += g * g;
      const double usual = std::sqrt(squares / std::max<double>(1, static_cast<double>(gradient[i].size())));
      for (std::size_t at = 0; at < gradient[i].size(); ++at) {
        Vectors direction;
        for (const Tensor& input : inputs_)
          direction.emplace_back(static_cast<std::size_t>(input.elements()), 0.0);
        direction[i][at] = 1;
        compare_slope(gradient, direction, usual, join_text("input ", i, " element ", at));
      }
    }
    return errors_;
  }

 private:
  std::vector<Variable> variables(const std::vector<Gradient>& gradients) const {
    std::vector<Variable> all;
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      all.push_back({inputs_[i], i < gradients.size() ? gradients[i] : Gradient()});
    return all;
  }

  /// One forward and backward; the seed is put into `times` uses of the function.
  void run_backward(const std::vector<Gradient>& gradients, int times = 1) const {
    Tape tape;
    const std::vector<Variable> arguments = variables(gradients);
    for (int use = 0; use < times; ++use) function_(tape, arguments).gradient.add(weights_.clone());
    tape.backward();
  }

  /// Gradients as parameters have them, their storage poisoned at first; twice into the same storage must
  /// double.
  Vectors check_storage() {
    std::vector<Gradient> stored;
    for (const Tensor& input : inputs_) {
      const std::vector<double> poison(static_cast<std::size_t>(input.elements()),
                                       std::numeric_limits<double>::quiet_NaN());
      stored.push_back(Gradient::stored_in(Tensor::from(poison, input.shape())));
    }
    run_backward(stored);
    Vectors once;
    for (const Gradient& gradient : stored) once.push_back(gradient.finished().to_host<double>());
    run_backward(stored);
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      compare_sums(stored[i].finished().to_host<double>(), once[i], 2, {},
                   join_text("second backward, input ", i));
    return once;
  }

  void check_other_ways(const Vectors& once) {
    std::vector<Gradient> holding, used_twice;
    std::vector<Tensor> prior;
    for (const Tensor& input : inputs_) {
      prior.push_back(normal_tensor("prior", input.shape()));
      holding.push_back(Gradient::of(input));
      holding.back().add(prior.back().clone());
      used_twice.push_back(Gradient::of(input));
    }
    run_backward(holding);
    run_backward(used_twice, 2);
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      compare_sums(holding[i].take().to_host<double>(), once[i], 1, prior[i].to_host<double>(),
                   join_text("added to what was there, input ", i));
      compare_sums(used_twice[i].take().to_host<double>(), once[i], 2, {},
                   join_text("used twice, input ", i));
      std::vector<Gradient> only(inputs_.size());
      only[i] = Gradient::of(inputs_[i]);
      run_backward(only);
      compare_sums(only[i].take().to_host<double>(), once[i], 1, {},
                   join_text("the only one asked for, input ", i));
    }
  }

  void compare_sums(const std::vector<double>& got, const std::vector<double>& once, double factor,
                    const std::vector<double>& prior, const std::string& where) {
    double largest = negligible;
    for (const double value : once) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double want = factor * once[i] + (prior.empty() ? 0 : prior[i]);
      note(errors_.accumulation, errors_.where_accumulation, std::abs(got[i] - want) / largest, where);
    }
  }

  /// The function's value, summed with the fixed weights, at inputs + distance * direction.
  double value_at(const Vectors& direction, double distance) const {
    std::vector<Variable> moved;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      std::vector<double> values = inputs_[i].to_host<double>();
      for (std::size_t j = 0; j < values.size(); ++j) values[j] += distance * direction[i][j];
      moved.push_back({Tensor::from(values, inputs_[i].shape()), {}});
    }
    Tape tape(Tape::Mode::forward_only);
    const std::vector<double> output = function_(tape, moved).value.to_host<double>();
    const std::vector<double> weights = weights_.to_host<double>();
    double sum = 0;
    for (std::size_t i = 0; i < output.size(); ++i) sum += weights[i] * output[i];
    return sum;
  }

  void compare_slope(const Vectors& gradient, const Vectors& direction, double usual,
                     const std::string& where) {
    double slope = 0, squares = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i)
      for (std::size_t j = 0; j < gradient[i].size(); ++j) {
        slope += gradient[i][j] * direction[i][j];
        squares += gradient[i][j] * gradient[i][j] * direction[i][j] * direction[i][j];
      }
    const double numeric = (8 * (value_at(direction, step) - value_at(direction, -step)) -
                            (value_at(direction, 2 * step) - value_at(direction, -2 * step))) /
                           (12 * step);
    const double scale = std::max({std::abs(numeric), std::sqrt(squares), usual, negligible});
    note(errors_.derivative, errors_.where_derivative, std::abs(slope - numeric) / scale, where);
  }

  static void note(double& worst, std::string& worst_where, double error, const std::string& where) {
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    if (error <= worst) return;
    worst = error;
    worst_where = where;
  }

  Differentiable function_;
  std::vector<Tensor> inputs_;
  Tensor weights_;
  GradientErrors errors_;
};

}  // namespace

GradientErrors check_gradient(const Differentiable& function, const std::vector<Tensor>& inputs, Seed seed) {
  // Tensors are tiny here: waking threads would take most of the time.
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(1);
  const GradientErrors errors = Checker(function, inputs, seed).run();
  omp_set_num_threads(threads_before);
  return errors;
}

Tensor normal_tensor(std::string_view name, const Shape& shape, double scale) {
  std::vector<double> values(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * RandomKey(2).with(name).normal(i);
  return Tensor::from(values, shape);
}

}  // namespace conclave::test
