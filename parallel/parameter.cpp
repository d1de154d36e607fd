#include "parallel/parameter.h"

#include <array>

#include "framework/base/random.h"

namespace conclave {
namespace {

constexpr std::int64_t alignment = 16;  // elements; every parameter begins on its own cache line

/// Calls visit(index in the part, index in the whole) for every element of a parameter's part.
template <class Visit>
void for_each_element(const Parameter& parameter, Visit&& visit) {
  std::array<std::int64_t, 4> size{1, 1, 1, 1}, whole{1, 1, 1, 1}, first{0, 0, 0, 0};
  const int dims = parameter.shape.dims();
  for (int dim = 0; dim < dims; ++dim) {
    const auto at = static_cast<std::size_t>(4 - dims + dim);
    size[at] = parameter.shape[dim];
    whole[at] = parameter.global_shape[dim];
    first[at] = parameter.origin[dim];
  }
  const std::int64_t rows = size[0] * size[1] * size[2];
#pragma omp parallel for
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t a = row / (size[1] * size[2]), b = row / size[2] % size[1], c = row % size[2];
    const std::int64_t begin =
        (((first[0] + a) * whole[1] + first[1] + b) * whole[2] + first[2] + c) * whole[3] + first[3];
    for (std::int64_t d = 0; d < size[3]; ++d) visit(row * size[3] + d, begin + d);
  }
}

/// Draws the initial values of the parameter's part.
template <class T>
void draw(const Parameter& parameter, std::uint64_t seed, const Tensor& into) {
  const RandomKey key = RandomKey(seed).with("initial").with(parameter.name);
  const Initializer& initializer = parameter.initializer;
  std::vector<T> values(static_cast<std::size_t>(parameter.shape.elements()));
  switch (initializer.kind) {
    case Initializer::Kind::zeros:
      break;
    case Initializer::Kind::ones:
      values.assign(values.size(), T(1));
      break;
    case Initializer::Kind::constant:
      values.assign(values.size(), static_cast<T>(initializer.value));
      break;
    case Initializer::Kind::normal:
      for_each_element(parameter, [&](std::int64_t part, std::int64_t whole) {
        values[static_cast<std::size_t>(part)] =
            static_cast<T>(initializer.standard_deviation * key.normal(static_cast<std::uint64_t>(whole)));
      });
  }
  into.copy_from(Tensor::from(values, parameter.shape));
}

}  // namespace

Parameter& ParameterSet::create(const std::string& name, Shape global_shape, Initializer initializer,
                                Decay decay, const Placement& placement, Precision precision) {
  check(!values_.defined(), "ParameterSet: ", name, " came after the set had been materialized");
  check(names_.insert(name).second, "ParameterSet: two parameters are named ", name);
  Parameter parameter;
  parameter.name = name;
  parameter.global_shape = parameter.shape = global_shape;
  parameter.origin = global_shape;
  for (int dim = 0; dim < global_shape.dims(); ++dim) parameter.origin = parameter.origin.with(dim, 0);
  for (const Cut& cut : placement.cuts) {
    const std::int64_t degree = layout_.degree(cut.axis), size = global_shape[cut.dim];
    check(size % degree == 0, Fault::request, "The layout cannot be: parallel.", name_of(cut.axis), " is ",
          degree, ", which does not divide dim ", cut.dim, " of ", name, " ", global_shape, ".");
    parameter.shape = parameter.shape.with(cut.dim, size / degree);
    parameter.origin = parameter.origin.with(cut.dim, layout_.coordinate(rank_, cut.axis) * (size / degree));
  }
  parameter.placement = placement;
  parameter.initializer = initializer;
  parameter.decay = decay;
  parameter.precision = precision;
  parameters_.push_back(std::move(parameter));
  return parameters_.back();
}

std::int64_t ParameterSet::room_of(const Parameter& parameter) const {
  const std::int64_t unit = alignment * layout_.degree(parameter.placement.replicas);
  return (parameter.shape.elements() + unit - 1) / unit * unit;
}

void ParameterSet::materialize(DType compute, std::uint64_t seed, Device& device) {
  std::int64_t elements = 0;
  for (const Axis replicas : {Axis::data, Axis::data_tensor, Axis::expert_data})
    for (Parameter& parameter : parameters_) {
      if (parameter.placement.replicas != replicas) continue;
      parameter.offset = elements;
      elements += room_of(parameter);
    }
  const DType kept = sum_type(compute);
  values_ = Tensor::zeros({elements}, kept, device, MemoryPurpose::parameters);
  gradients_ = Tensor::zeros({elements}, kept, device, MemoryPurpose::gradients);
  if (kept != compute) rounded_ = Tensor::empty({elements}, compute, device, MemoryPurpose::parameters);
  for (Parameter& parameter : parameters_) {
    const Tensor part = values_.part(parameter.offset, parameter.shape);
    const bool is_rounded = rounded_.defined() && parameter.precision == Precision::compute;
    parameter.value = is_rounded ? rounded_.part(parameter.offset, parameter.shape) : part;
    parameter.gradient = Gradient::stored_in(gradients_.part(parameter.offset, parameter.shape));
    if (device.computes())
      with_float_type(kept, [&](auto zero) { draw<decltype(zero)>(parameter, seed, part); });
  }
  round_values();
}

void ParameterSet::round_values() {
  if (rounded_.defined()) kernels_of(values_).convert(values_, rounded_);
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
