// How tensors lie in host memory, and the words to read and write them. Arithmetic on bfloat16 is in float32,
// on the others in their own type.
#pragma once

#include <type_traits>
#include <vector>

#include "framework/tensor/tensor.h"

namespace conclave::cpu {

/// The type to compute with what is stored as T.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;

template <class T>
Sum<T> load(const T* from) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return to_float(*from);
  else
    return *from;
}

template <class T>
void store(T* to, std::type_identity_t<Sum<T>> value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    *to = to_bfloat16(value);
  else
    *to = value;
}

/// Calls function(T{}) with T = float, double or BFloat16.
template <class Function>
void with_storage_type(DType dtype, Function&& function) {
  if (dtype == DType::bfloat16) return function(BFloat16{});
  with_float_type(dtype, function);
}

/// Calls function(U{}) with U = T or Sum<T>: the type of a result that may be kept as sums.
template <class T, class Function>
void with_result_type(const char* where, DType dtype, Function&& function) {
  if (dtype == dtype_of<T>()) return function(T{});
  check(dtype == dtype_of<Sum<T>>(), where, ": a result of ", name_of(dtype), " came with tensors of ",
        name_of(dtype_of<T>()), "; it must be of that type or its sum type");
  if constexpr (!std::is_same_v<T, Sum<T>>) function(Sum<T>{});
}

/// A row that is summed up and rounded once: in its own place, or beside it where it is stored as bfloat16.
template <class T>
class SummedRow {
 public:
  explicit SummedRow(std::int64_t width)
      : beside_(std::is_same_v<T, Sum<T>> ? 0 : static_cast<std::size_t>(width)) {}
  Sum<T>* sums_of(T* row) {
    if constexpr (std::is_same_v<T, Sum<T>>)
      return row;
    else
      return beside_.data();
  }
  void write(T* row) const {
    const auto width = static_cast<std::int64_t>(beside_.size());
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) store(row + i, beside_[static_cast<std::size_t>(i)]);
  }

 private:
  std::vector<Sum<T>> beside_;
};

}  // namespace conclave::cpu
