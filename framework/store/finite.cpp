#include "framework/store/finite.h"

#include <algorithm>
#include <cstring>

#include "framework/base/error.h"
#include "framework/store/checkpoint_file.h"

namespace conclave {
namespace {

/// The values that a tensor may hold besides finite ones.
enum class Allowed { nothing, infinity };

/// Looks at bits, so that no mode of floating-point arithmetic matters, block by block, each in a loop of
/// vector instructions. Without their sign, the bits of a NaN are above those of infinity as whole numbers.
template <class Bits>
std::optional<std::int64_t> first_bad(const void* data, std::int64_t elements, Bits infinity,
                                      Allowed allowed) {
  constexpr std::int64_t block = 1 << 12;
  constexpr Bits sign = Bits{1} << (8 * sizeof(Bits) - 1);
  const Bits most = allowed == Allowed::infinity ? infinity : infinity - 1, least = sign | infinity;
  const auto* bytes = static_cast<const std::byte*>(data);
  const auto is_bad = [&](std::int64_t i) {
    Bits bits;
    std::memcpy(&bits, bytes + static_cast<std::size_t>(i) * sizeof bits, sizeof bits);
    return static_cast<Bits>((bits & ~sign) > most) | static_cast<Bits>(bits == least);
  };
  for (std::int64_t begin = 0; begin < elements; begin += block) {
    const std::int64_t end = std::min(elements, begin + block);
    Bits found = 0;
    for (std::int64_t i = begin; i < end; ++i) found |= is_bad(i);
    if (found == 0) continue;
    for (std::int64_t i = begin; i < end; ++i)
      if (is_bad(i) != 0) return i;
  }
  return std::nullopt;
}

std::optional<std::int64_t> first_bad_of_type(ElementType type, const void* data, std::int64_t elements,
                                              Allowed allowed) {
  if (type == ElementType::float32) return first_bad<std::uint32_t>(data, elements, 0x7f800000u, allowed);
  if (type == ElementType::float64)
    return first_bad<std::uint64_t>(data, elements, 0x7ff0000000000000u, allowed);
  return std::nullopt;
}

/// The elements that are read at a time.
constexpr std::int64_t most_elements = std::int64_t{1} << 22;

/// Blocks of rows of a tensor.
std::vector<Box> blocks_of(const Dims& dims) {
  const std::int64_t elements = element_count(dims);
  const std::int64_t row =
      std::max<std::int64_t>(1, dims.empty() ? 1 : elements / std::max<std::int64_t>(1, dims[0]));
  const std::int64_t rows = std::max<std::int64_t>(1, most_elements / row);
  std::vector<Box> blocks;
  for (std::int64_t begin = 0; begin < elements; begin += rows * row)
    for (Box& box : boxes_of_range(dims, begin, std::min(rows * row, elements - begin)))
      blocks.push_back(std::move(box));
  return blocks;
}

}  // namespace

std::optional<std::int64_t> first_not_finite(ElementType type, const void* data, std::int64_t elements) {
  return first_bad_of_type(type, data, elements, Allowed::nothing);
}

std::optional<std::int64_t> first_bad_value(const std::string& tensor, ElementType type, const void* data,
                                            std::int64_t elements) {
  const bool is_second_moment = tensor.starts_with("optimizer/moment2/");
  return first_bad_of_type(type, data, elements, is_second_moment ? Allowed::infinity : Allowed::nothing);
}

void check_finite(const FiniteCheck& what, ElementType type, const void* data, std::int64_t elements) {
  if (!first_bad_value(what.tensor, type, data, elements)) return;
  fail(Fault::numeric, what.place, ": ", what.tensor,
       " holds values that are not finite (NaN or infinity), so nothing can be computed with it.",
       what.advice.empty() ? "" : " ", what.advice);
}

std::vector<std::string> tensors_not_finite(const CheckpointReader& checkpoint) {
  std::vector<std::string> found;
  for (const std::string& name : checkpoint.names()) {
    const DatasetInfo info = checkpoint.describe(name);
    if (info.type != ElementType::float32 && info.type != ElementType::float64) continue;
    try {
      std::vector<std::byte> values;
      for (const Box& box : blocks_of(info.dims)) {
        values.resize(static_cast<std::size_t>(element_count(box)) * element_bytes(info.type));
        checkpoint.read_box(name, info.type, box, values.data());  // which looks at each value
      }
    } catch (const Error& error) {
      if (error.fault() != Fault::numeric) throw;
      found.push_back(name);
    }
  }
  return found;
}

}  // namespace conclave
