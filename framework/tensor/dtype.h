// The element types of tensors, chosen at run time, and the one place where a run-time type becomes a C++
// type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "framework/base/error.h"

namespace conclave {

enum class DType { float32, float64, int32, int64 };

inline std::size_t element_bytes(DType dtype) {
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
