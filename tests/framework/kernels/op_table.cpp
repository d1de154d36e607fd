#include "tests/framework/kernels/op_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "framework/base/random.h"
#include "framework/device/sanitizer.h"
#include "tests/devices.h"

namespace conclave::test {
namespace {

constexpr std::int64_t guard_elements = 64;  // on either side of every tensor
constexpr double sentinel = -1236992;        // what they hold, exact in every type
constexpr double tolerance_constant = 16;    // c in c * epsilon * sqrt(length)

DType dtype_of_slot(const Slot& slot, DType floating) {
  switch (slot.type) {
    case Type::floating:
      return floating;
    case Type::sums:
      return sum_type(floating);
    case Type::float64:
      return DType::float64;
    case Type::int32:
      return DType::int32;
    case Type::int64:
      return DType::int64;
  }
  return floating;
}

template <class T>
Tensor upload_as(const Values& values, Device& device) {
  std::vector<T> typed(values.size());
  std::transform(values.begin(), values.end(), typed.begin(),
                 [](double value) { return static_cast<T>(value); });
  return Tensor::from(typed, {static_cast<std::int64_t>(values.size())}, device);
}

Tensor upload(const Values& values, DType dtype, Device& device) {
  switch (dtype) {
    case DType::float32:
      return upload_as<float>(values, device);
    case DType::float64:
      return upload_as<double>(values, device);
    case DType::int32:
      return upload_as<std::int32_t>(values, device);
    case DType::int64:
      return upload_as<std::int64_t>(values, device);
    case DType::bfloat16: {
      std::vector<BFloat16> rounded;
      for (const double value : values) rounded.push_back(to_bfloat16(static_cast<float>(value)));
      return Tensor::from(rounded, {static_cast<std::int64_t>(values.size())}, device);
    }
  }
  return {};
}

template <class T>
Values download_as(const Tensor& tensor) {
  const std::vector<T> typed = tensor.to_host<T>();
  return Values(typed.begin(), typed.end());
}

Values download(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::float32:
      return download_as<float>(tensor);
    case DType::float64:
      return download_as<double>(tensor);
    case DType::int32:
      return download_as<std::int32_t>(tensor);
    case DType::int64:
      return download_as<std::int64_t>(tensor);
    case DType::bfloat16: {
      Values values;
      for (const BFloat16 value : tensor.to_host<BFloat16>()) values.push_back(to_float(value));
      return values;
    }
  }
  return {};
}

/// The tensors of a case, each in the middle of a larger one filled with the sentinel.
struct Stage {
  std::vector<Tensor> wholes;
  Arguments arguments;
};

Stage run_on_stage(const OpCase& op, Device& device, DType dtype, Guard guarded) {
  Stage stage;
  const std::int64_t guard = guarded == Guard::region ? guard_elements : 0;
  for (const Slot& slot : op.slots) {
    const DType slot_dtype = dtype_of_slot(slot, dtype);
    const std::int64_t count = slot.shape.elements();
    Values whole(static_cast<std::size_t>(count + 2 * guard), sentinel);
    if (slot.role == Role::output)
      std::fill_n(whole.begin() + guard, count,
                  is_floating(slot_dtype) ? std::numeric_limits<double>::quiet_NaN() : sentinel);
    else
      std::copy(slot.values.begin(), slot.values.end(), whole.begin() + guard);
    stage.wholes.push_back(upload(whole, slot_dtype, device));
    stage.arguments.put(slot.name, stage.wholes.back().part(guard, slot.shape));
  }
  op.run(kernels_of(stage.wholes.front()), stage.arguments);
  return stage;
}

/// How far a result may be off, relative to the largest: c * epsilon * sqrt(length) in the type that is
/// computed in, and in a run in bfloat16 half a unit in its last place, 2^-9, for each time it is rounded;
/// that is doubled, because many of them meet in a sum.
double tolerance_of(const Slot& slot, const OpCase& op, DType dtype) {
  const double epsilon = dtype == DType::float64 ? std::numeric_limits<double>::epsilon()
                                                 : std::numeric_limits<float>::epsilon();
  const double computed = tolerance_constant * epsilon * std::sqrt(std::max(1.0, op.length));
  if (dtype != DType::bfloat16) return computed;
  const int roundings = slot.roundings + (slot.type == Type::floating ? 1 : 0);
  return computed + roundings * std::ldexp(1.0, -8);
}

std::string compare(const Slot& slot, const Values& got, double relative, double least_scale) {
  double largest = least_scale;
  for (const double value : slot.expected)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  const bool is_integer = slot.type == Type::int32 || slot.type == Type::int64;
  const double tolerance = is_integer ? 0 : relative * largest;
  std::size_t worst = 0;
  double worst_error = -1;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = got[i] == slot.expected[i] ? 0 : std::abs(got[i] - slot.expected[i]);
    if (std::isnan(error)) return join_text(slot.name, "[", i, "] is not a number, or was never written");
    if (error > worst_error) worst = i, worst_error = error;
  }
  if (worst_error <= tolerance) return {};
  return join_text(slot.name, "[", worst, "] is ", got[worst], ", expected ", slot.expected[worst],
                   " within ", tolerance);
}

}  // namespace

OpCase& OpCase::input(std::string slot, Shape shape, Values values, Type type) {
  slots.push_back({std::move(slot), Role::input, type, shape, values, values});
  return *this;
}

OpCase& OpCase::output(std::string slot, Shape shape, Values expected, Type type) {
  slots.push_back({std::move(slot), Role::output, type, shape, {}, std::move(expected)});
  return *this;
}

OpCase& OpCase::update(std::string slot, Shape shape, Values values, Values expected, Type type) {
  slots.push_back({std::move(slot), Role::update, type, shape, std::move(values), std::move(expected)});
  return *this;
}

OpCase& OpCase::written(std::string slot, Shape shape, Write write, Values result, Type type) {
  if (write == Write::overwrite) return output(std::move(slot), shape, std::move(result), type);
  const Values before = draw(slot, shape.elements());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] += before[i];
  return update(std::move(slot), shape, before, std::move(result), type);
}

Values draw(std::string_view name, std::int64_t count, double scale) {
  const RandomKey key = RandomKey(1).with(name);
  Values values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = to_float(to_bfloat16(static_cast<float>(scale * key.normal(i))));
  return values;
}

Values as_values(const std::vector<int>& numbers) {
  return Values(numbers.begin(), numbers.end());
}

std::vector<Device*> devices() {
  // Under a sanitizer the emulated device has a test of its own, device_code_test.
  if (std::string_view(sanitizer::name) != "none") return {&cpu_device()};
  std::vector<Device*> found = gpu_devices();
  found.insert(found.begin(), &cpu_device());
  return found;
}

std::vector<DType> float_types_of(const Device& device) {
  if (device.kind() == DeviceKind::cpu) return {DType::float32, DType::float64, DType::bfloat16};
  return {DType::float32, DType::bfloat16};
}

std::vector<DType> types_of(const OpCase& op, const Device& device) {
  using enum OpCase::BFloat16Runs;
  const bool bfloat16 =
      op.bfloat16_runs == everywhere || (op.bfloat16_runs == on_cpu && device.kind() == DeviceKind::cpu);
  std::vector<DType> types = float_types_of(device);
  if (!bfloat16) std::erase(types, DType::bfloat16);
  return types;
}

std::vector<std::string> run_case(const OpCase& op, Device& device, DType dtype, Guard guarded) {
  const Stage stage = run_on_stage(op, device, dtype, guarded);
  const std::int64_t guard = guarded == Guard::region ? guard_elements : 0;
  std::vector<std::string> problems;
  for (std::size_t i = 0; i < op.slots.size(); ++i) {
    const Slot& slot = op.slots[i];
    const Values whole = download(stage.wholes[i]);
    const auto begin = whole.begin() + guard, end = whole.end() - guard;
    const auto touched = [](double value) { return value != sentinel; };
    if (std::any_of(whole.begin(), begin, touched))
      problems.push_back(slot.name + ": memory before it was touched");
    if (std::any_of(end, whole.end(), touched))
      problems.push_back(slot.name + ": memory behind it was touched");
    const Values got(begin, end);
    if (slot.role == Role::input && got != slot.values)
      problems.push_back(slot.name + ": an input was changed");
    if (got.size() != slot.expected.size())
      problems.push_back(
          join_text(slot.name, ": the case expects ", slot.expected.size(), " values of ", got.size()));
    else if (slot.role != Role::input)
      if (const std::string wrong = compare(slot, got, tolerance_of(slot, op, dtype), op.least_scale);
          !wrong.empty())
        problems.push_back(wrong);
  }
  return problems;
}

std::map<std::string, std::vector<std::byte>> results_of(const OpCase& op, Device& device, DType dtype) {
  const Stage stage = run_on_stage(op, device, dtype, Guard::region);
  std::map<std::string, std::vector<std::byte>> results;
  for (const Slot& slot : op.slots) {
    const Tensor& tensor = stage.arguments[slot.name];
    std::vector<std::byte> bytes(tensor.bytes());
    device.copy_to_host(bytes.data(), tensor.raw(), bytes.size());
    if (slot.role != Role::input) results[slot.name] = std::move(bytes);
  }
  return results;
}

std::vector<OpCase> all_cases() {
  std::vector<OpCase> all;
  for (auto* family :
       {product_cases, elementwise_cases, attention_cases, vocabulary_cases, routing_cases, pool_cases})
    for (OpCase& op : family()) all.push_back(std::move(op));
  return all;
}

}  // namespace conclave::test
