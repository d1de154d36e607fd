// Linear, Bias and RmsNorm: the smallest layers, one parameter each, named as Hugging Face names them.
#pragma once

#include "framework/autograd/ops/elementwise.h"
#include "framework/autograd/ops/linear.h"
#include "parallel/parameter.h"

namespace conclave {

/// y = x W^T without bias. Parameter: NAME.weight [out, in].
class Linear {
 public:
  /// Cut over tensor ranks along dim 0 it computes this rank's columns of y from the whole x. Cut along dim 1
  /// it computes this rank's term of the sum that is y, from this rank's columns of x.
  Linear(ParameterSet& parameters, const std::string& name, std::int64_t in, std::int64_t out,
         double standard_deviation, const Placement& placement = {}, Precision precision = Precision::compute)
      : weight_(parameters.create(name + ".weight", {out, in},
                                  {Initializer::Kind::normal, standard_deviation}, Decay::yes, placement,
                                  precision)) {}

  /// x [rows, in of this rank] -> [rows, out of this rank], in the precision of the weight
  Variable forward(Tape& tape, const Variable& x) const {
    return linear(tape, to_type(tape, x, weight_.value.dtype()), weight_.use(tape));
  }

 private:
  const Parameter& weight_;
};

/// y = x + bias. Parameter: NAME.bias [width], zeros, which do not decay.
class Bias {
 public:
  Bias(ParameterSet& parameters, const std::string& name, std::int64_t width, const Placement& placement)
      : bias_(parameters.create(name + ".bias", {width}, {Initializer::Kind::zeros}, Decay::no, placement)) {}

  /// x [rows, width of this rank] -> the same
  Variable forward(Tape& tape, const Variable& x) const { return add_bias(tape, x, bias_.use(tape)); }

 private:
  const Parameter& bias_;
};

/// Parameter: NAME.weight [width], ones.
class RmsNorm {
 public:
  RmsNorm(ParameterSet& parameters, const std::string& name, std::int64_t width, double epsilon,
          const Placement& placement = {})
      : weight_(
            parameters.create(name + ".weight", {width}, {Initializer::Kind::ones}, Decay::no, placement)),
        epsilon_(epsilon) {}

  /// x of any shape whose last dims make rows of `width` -> the same shape
  Variable forward(Tape& tape, const Variable& x) const {
    return rms_norm(tape, x, weight_.use(tape), epsilon_);
  }

 private:
  const Parameter& weight_;
  double epsilon_;
};

}  // namespace conclave
