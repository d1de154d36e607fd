// Gradient check in float64: what an op's backward gives against central differences of its forward, in
// random directions over all inputs, and one by one over every input element of small cases. It also runs the
// ways in which backward can meet a gradient: a second backward into the same storage, a sum that holds
// something already, inputs used twice, and only one of the inputs wanting a gradient.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "framework/autograd/tape.h"

namespace conclave::test {

/// Any computation on the tape with one float64 output; outputs of many elements are reduced by a fixed
/// random sum.
using Differentiable = std::function<Variable(Tape&, const std::vector<Variable>&)>;

enum class Seed { random, one };  // one: the output is an objective whose gradient must be 1

struct GradientErrors {
  double derivative = 0;                                 // relative, against central differences
  double accumulation = 0;                               // relative, between the ways of running backward
  std::string where_derivative{}, where_accumulation{};  // of the worst
};

GradientErrors check_gradient(const Differentiable& function, const std::vector<Tensor>& inputs,
                              Seed seed = Seed::random);

/// A float64 tensor of standard normal numbers, always the same for the same name.
Tensor normal_tensor(std::string_view name, const Shape& shape, double scale = 1);

}  // namespace conclave::test
