// How activations and weights lie in memory, and the words to read and write them: all arithmetic is in
// float32, whether they are stored as float32 or bfloat16.
#pragma once

#include <type_traits>

#include "framework/kernels/cuda/dialect.h"
#include "framework/tensor/tensor.h"

namespace conclave::DIALECT {

DEVICE float load(const float* from) {
  return *from;
}
DEVICE void store(float* to, float value) {
  *to = value;
}
DEVICE float load(const BFloat16* from) {
  return to_float(*from);
}
DEVICE void store(BFloat16* to, float value) {
  *to = to_bfloat16(value);
}

/// Calls function(T{}) with T the type that tensors of this dtype are stored in on a GPU.
template <class Function>
void with_storage_type(DType dtype, Function&& function) {
  if (dtype == DType::bfloat16) return function(BFloat16{});
  check(dtype == DType::float32, Fault::request, "kernels of a GPU take float32 and bfloat16, ",
        name_of(dtype), " came; train with training.precision: fp32 or bf16, or on device cpu");
  function(float{});
}

/// Calls function(U{}) with U = T or float: the type of a result that may be kept as sums.
template <class T, class Function>
void with_result_type(const char* where, DType dtype, Function&& function) {
  if (dtype == dtype_of<T>()) return function(T{});
  check(dtype == DType::float32, where, ": a result of ", name_of(dtype), " came with tensors of ",
        name_of(dtype_of<T>()), "; it must be of that type or float32");
  if constexpr (!std::is_same_v<T, float>) function(float{});
}

/// For what is kept in float32 alone: statistics, weights of experts, the state of the optimizer.
inline const float* check_float32(const char* where, const Tensor& tensor) {
  check(tensor.dtype() == DType::float32, Fault::request, where, ": on a GPU this is kept in float32, ",
        name_of(tensor.dtype()), " came; train with training.precision: fp32 or bf16, or on device cpu");
  return tensor.data<float>();
}

/// Blocks of `per_block` items that cover `items`.
inline std::int64_t blocks_for(std::int64_t items, std::int64_t per_block) {
  return (items + per_block - 1) / per_block;
}

/// The first item of this thread and the distance to its next, in a grid that walks over all items together.
DEVICE std::int64_t first_item() {
  return block_index() * block_size() + thread_index();
}
DEVICE std::int64_t item_stride() {
  return block_count() * block_size();
}
/// A grid for such a walk: enough threads to fill a GPU, no more.
inline LaunchShape walk_over(std::int64_t items, void* stream) {
  constexpr std::int64_t most_blocks = 8192;
  const std::int64_t blocks = blocks_for(items, block_threads);
  return {.blocks = blocks < most_blocks ? blocks : most_blocks, .stream = stream};
}

constexpr int warps_per_block = block_threads / warp_size;
/// The item of this warp where each warp of the grid has one; items beyond the last are for the caller to
/// skip.
DEVICE std::int64_t item_of_warp() {
  return block_index() * warps_per_block + warp_index();
}
inline LaunchShape warp_for_each(std::int64_t items, void* stream) {
  return {.blocks = blocks_for(items, warps_per_block), .stream = stream};
}

}  // namespace conclave::DIALECT
