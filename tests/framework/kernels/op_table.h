// The op table: a case names an op, its tensors and the results that plain loops in float64 expect of it.
// run_case runs it on one device in one float type and says in sentences what is wrong: results beyond
// tolerance, results never written, inputs changed, memory outside a tensor touched. A new device runs the
// same table by joining devices().
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "framework/kernels/kernels.h"

namespace conclave::test {

using Values = std::vector<double>;
using Size = std::size_t;  // of loops over Values

/// The same as shapes have it.
inline std::int64_t length_of(Size size) {
  return static_cast<std::int64_t>(size);
}

enum class Role { input, output, update };  // update: read and written
/// floating: of the type that the case runs in; sums: of its sum_type.
enum class Type { floating, sums, float64, int32, int64 };

struct Slot {
  std::string name;
  Role role;
  Type type;
  Shape shape;
  Values values;      // before the op; outputs start as NaN
  Values expected;    // after the op
  int roundings = 0;  // beside the one when it is written: to bfloat16, of what it is computed from
};

/// The tensors of a running case by name.
class Arguments {
 public:
  const Tensor& operator[](const std::string& name) const { return tensors_.at(name); }
  void put(const std::string& name, const Tensor& tensor) { tensors_[name] = tensor; }

 private:
  std::map<std::string, Tensor> tensors_;
};

struct OpCase {
  std::string name;
  double length;  // terms in the longest sum behind one result
  std::function<void(const Kernels&, const Arguments&)> run;
  bool bit_equal_in_float32 = true;  // for every number of threads, and so in bfloat16
  double least_scale = 0.01;         // errors count relative to the largest result, and at least to this
  std::vector<Slot> slots{};
  /// Where the case runs in bfloat16: nowhere when its kernel is given sums alone.
  enum class BFloat16Runs { everywhere, on_cpu, nowhere } bfloat16_runs = BFloat16Runs::everywhere;

  OpCase& input(std::string slot, Shape shape, Values values, Type type = Type::floating);
  OpCase& output(std::string slot, Shape shape, Values expected, Type type = Type::floating);
  OpCase& update(std::string slot, Shape shape, Values values, Values expected, Type type = Type::floating);
  /// A result that overwrites, or adds to random values.
  OpCase& written(std::string slot, Shape shape, Write write, Values result, Type type = Type::floating);
};

/// Standard normal numbers that bfloat16 holds exactly, always the same for the same name.
Values draw(std::string_view name, std::int64_t count, double scale = 1);
Values as_values(const std::vector<int>& numbers);

/// All that can compute here.
std::vector<Device*> devices();
/// The floating-point types that a device computes in.
std::vector<DType> float_types_of(const Device& device);
/// Those that a case runs in there.
std::vector<DType> types_of(const OpCase& op, const Device& device);
/// Around each tensor lies a region whose bytes are compared afterwards, or nothing at all, so that a
/// sanitizer sees reads out of bounds, too.
enum class Guard { region, none };
std::vector<std::string> run_case(const OpCase& op, Device& device, DType dtype, Guard guard = Guard::region);
/// The results of a case as they are, for comparisons bit by bit.
std::map<std::string, std::vector<std::byte>> results_of(const OpCase& op, Device& device, DType dtype);

std::vector<OpCase> product_cases();
std::vector<OpCase> elementwise_cases();
std::vector<OpCase> attention_cases();
std::vector<OpCase> vocabulary_cases();
std::vector<OpCase> routing_cases();
std::vector<OpCase> pool_cases();
std::vector<OpCase> all_cases();

}  // namespace conclave::test
