// Parameter: a named weight, its gradient, and how it starts. ParameterSet keeps all of a model's parameters
// in one flat buffer, and their gradients in another, in the order of creation: gradient reduction and the
// optimizer see spans of these, never layers.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "framework/autograd/tape.h"

namespace conclave {

struct Initializer {
  enum class Kind { normal, ones, zeros } kind = Kind::normal;
  double standard_deviation = 0.02;
};

/// Whether weight decay applies: matrices decay, norms and biases do not.
enum class Decay { yes, no };

struct Parameter {
  std::string name;  // Hugging Face's, see layers/transformer.h
  Shape shape;
  Initializer initializer;
  Decay decay = Decay::yes;
  bool frozen = false;
  std::int64_t offset = 0;  // first element in the flat buffers
  Tensor value;
  Gradient gradient;

  /// The parameter as an op's input; its first use on the tape is marked so that its gradient's completion is
  /// known.
  Variable use(Tape& tape) const {
    if (frozen) return {value, {}};
    tape.watch(gradient);
    return {value, gradient};
  }
};

class ParameterSet {
 public:
  /// Adds a parameter; the reference stays good. Memory comes with materialize().
  Parameter& create(const std::string& name, Shape shape, Initializer initializer, Decay decay);

  /// Takes memory for all values and gradients and draws the initial values: element i of a parameter is a
  /// pure function of (seed, name, i).
  void materialize(DType dtype, std::uint64_t seed, Device& device = cpu_device());

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  const Parameter& find(std::string_view name) const;
  std::int64_t elements() const { return elements_; }
  const Tensor& values() const { return values_; }        // [elements], with alignment gaps that stay zero
  const Tensor& gradients() const { return gradients_; }  // [elements]
  void clear_gradients();

 private:
  std::deque<Parameter> parameters_;
  std::int64_t elements_ = 0;
  Tensor values_, gradients_;
};

}  // namespace conclave
