#include "parallel/parameter.h"

#include "framework/base/random.h"

namespace conclave {
namespace {

constexpr std::int64_t alignment = 16;  // elements; every parameter begins on its own cache line

template <class T>
void draw(const Parameter& parameter, std::uint64_t seed) {
  const RandomKey key = RandomKey(seed).with("initial").with(parameter.name);
  const std::int64_t elements = parameter.shape.elements();
  std::vector<T> values(static_cast<std::size_t>(elements));
  const Initializer& initializer = parameter.initializer;
  switch (initializer.kind) {
    case Initializer::Kind::zeros:
      break;
    case Initializer::Kind::ones:
      values.assign(values.size(), T(1));
      break;
    case Initializer::Kind::normal:
#pragma omp parallel for
      for (std::int64_t i = 0; i < elements; ++i)
        values[static_cast<std::size_t>(i)] =
            static_cast<T>(initializer.standard_deviation * key.normal(static_cast<std::uint64_t>(i)));
  }
  parameter.value.copy_from(Tensor::from(values, parameter.shape));
}

}  // namespace

Parameter& ParameterSet::create(const std::string& name, Shape shape, Initializer initializer, Decay decay) {
  check(!values_.defined(), "ParameterSet: ", name, " came after the set had been materialized");
  for (const Parameter& other : parameters_)
    check(other.name != name, "ParameterSet: two parameters are named ", name);
  Parameter parameter;
  parameter.name = name;
  parameter.shape = shape;
  parameter.initializer = initializer;
  parameter.decay = decay;
  parameter.offset = elements_;
  elements_ += (shape.elements() + alignment - 1) / alignment * alignment;
  parameters_.push_back(std::move(parameter));
  return parameters_.back();
}

void ParameterSet::materialize(DType dtype, std::uint64_t seed, Device& device) {
  values_ = Tensor::zeros({elements_}, dtype, device);
  gradients_ = Tensor::zeros({elements_}, dtype, device);
  for (Parameter& parameter : parameters_) {
    parameter.value = values_.part(parameter.offset, parameter.shape);
    parameter.gradient = Gradient::stored_in(gradients_.part(parameter.offset, parameter.shape));
    with_float_type(dtype, [&](auto zero) { draw<decltype(zero)>(parameter, seed); });
  }
}

const Parameter& ParameterSet::find(std::string_view name) const {
  for (const Parameter& parameter : parameters_)
    if (parameter.name == name) return parameter;
  fail(Fault::internal, "ParameterSet: there is no parameter named ", name);
}

void ParameterSet::clear_gradients() {
  for (const Parameter& parameter : parameters_) parameter.gradient.clear();
}

}  // namespace conclave
