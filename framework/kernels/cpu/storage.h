// How tensors lie in host memory, and the words to read and write them: arithmetic on bfloat16 is in float32,
// on the others in their own type.
#pragma once

#include <type_traits>

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

}  // namespace conclave::cpu
