// The element types of tensors, chosen at run time. This is the one place where a run-time type becomes a C++
// type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framework/base/bfloat16.h"
#include "framework/base/error.h"

namespace conclave {

enum class DType { float32, float64, int32, int64, bfloat16 };

inline std::size_t element_bytes(DType dtype) {
  if (dtype == DType::bfloat16) return 2;
  return dtype == DType::float32 || dtype == DType::int32 ? 4 : 8;
}

inline const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::bfloat16:
      return "bfloat16";
  }
  return "unknown";
}

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::float32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::float64;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::int32;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::int64;
}
template <>
constexpr DType dtype_of<BFloat16>() {
  return DType::bfloat16;
}

inline bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16;
}

/// The type of sums and statistics over tensors of a floating-point type: float32 for bfloat16, else the
/// same.
inline DType sum_type(DType dtype) {
  return dtype == DType::bfloat16 ? DType::float32 : dtype;
}

/// Calls function(T{}) with T = float or double.
template <class Function>
void with_float_type(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::float32:
      return function(float{});
    case DType::float64:
      return function(double{});
    default:
      fail(Fault::internal, "a tensor of ", name_of(dtype), " came, float32 or float64 was expected");
  }
}

}  // namespace conclave
