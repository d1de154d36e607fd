#include "framework/kernels/cuda/attention_tiles.h"

#include "framework/kernels/cuda/attention_tiles_backward.cuh"

namespace conclave::DIALECT {
namespace {

// The backward holds twice as much per row, so that its blocks are smaller and fit the GPUs that have 99 KiB.
constexpr int backward_threads = block_threads < 128 ? block_threads : 128;

constexpr int rows_of(int threads) {
  return threads / warp_size * tile_side;
}

/// Blocks that own `own` rows of each of so many heads. A block keeps `kept` matrices of its own rows, walks
/// over two more in two stages, and has so many bytes per warp.
LaunchShape shape_of(const AttentionSizes& z, std::int64_t heads, std::int64_t own, int threads, int kept,
                     std::size_t per_warp, void* stream) {
  const std::size_t rows = static_cast<std::size_t>(kept * rows_of(threads) + 4 * walked),
                    row_bytes = static_cast<std::size_t>(z.head_width + 8) * sizeof(BFloat16);
  return {.blocks = z.sequences * heads * blocks_for(own, rows_of(threads)),
          .threads = threads,
          .shared_bytes = rows * row_bytes + static_cast<std::size_t>(threads / warp_size) * per_warp,
          .stream = stream};
}

LaunchShape forward_shape(const AttentionSizes& z, void* stream) {
  return shape_of(z, z.heads, z.queries, block_threads, 1, sums_bytes + weights_bytes + factors_bytes,
                  stream);
}
LaunchShape dquery_shape(const AttentionSizes& z, void* stream) {
  return shape_of(z, z.heads, z.queries, backward_threads, 2, 2 * sums_bytes + weights_bytes, stream);
}
LaunchShape dkey_dvalue_shape(const AttentionSizes& z, void* stream) {
  return shape_of(z, z.kv_heads, z.keys, backward_threads, 2, 2 * sums_bytes + 2 * weights_bytes, stream);
}

template <class Function>
void with_width(std::int64_t width, Function&& function) {
  if (width == 64) return function(std::integral_constant<int, 64>{});
  function(std::integral_constant<int, 128>{});
}

}  // namespace

bool attention_fits_tiles(const AttentionSizes& z, const AttentionTensors& tensors) {
  if (tensors.query.dtype() != DType::bfloat16 || (z.head_width != 64 && z.head_width != 128) ||
      z.value_width != z.head_width || !has_matrix_units())
    return false;
  for (const Tensor* tensor : {&tensors.query, &tensors.key, &tensors.value, &tensors.dout})
    if (tensor->defined() && reinterpret_cast<std::uintptr_t>(tensor->raw()) % 16 != 0) return false;
  const std::size_t most = most_shared_bytes() - 1024;  // some are static, and some the driver's
  return forward_shape(z, nullptr).shared_bytes <= most && dquery_shape(z, nullptr).shared_bytes <= most &&
         dkey_dvalue_shape(z, nullptr).shared_bytes <= most;
}

void attention_on_tiles(const AttentionSizes& z, const AttentionTensors& in) {
  with_width(z.head_width, [&](auto width) {
    launch(forward_shape(z, in.query.device().stream()), attention_tiles_kernel<width()>, z,
           in.query.data<BFloat16>(), in.key.data<BFloat16>(), in.value.data<BFloat16>(),
           in.ranges.first.data<std::int32_t>(), in.ranges.last.data<std::int32_t>(),
           blocks_for(z.queries, rows_of(block_threads)), in.out.data<BFloat16>(),
           in.log_sum_exp.data<float>());
  });
}

void attention_backward_on_tiles(const AttentionSizes& z, const AttentionTensors& in, const Tensor& delta) {
  const AttentionInput<BFloat16> input{in.query.data<BFloat16>(),
                                       in.key.data<BFloat16>(),
                                       in.value.data<BFloat16>(),
                                       in.ranges.first.data<std::int32_t>(),
                                       in.ranges.last.data<std::int32_t>(),
                                       in.log_sum_exp.data<float>(),
                                       in.dout.data<BFloat16>(),
                                       delta.data<float>()};
  void* stream = in.query.device().stream();
  with_width(z.head_width, [&](auto width) {
    launch(dquery_shape(z, stream), attention_tiles_dquery_kernel<width()>, z, input,
           blocks_for(z.queries, rows_of(backward_threads)), in.dquery.data<BFloat16>());
    launch(dkey_dvalue_shape(z, stream), attention_tiles_dkey_dvalue_kernel<width()>, z, input,
           blocks_for(z.keys, rows_of(backward_threads)), in.dkey.data<BFloat16>(),
           in.dvalue.data<BFloat16>());
  });
}

}  // namespace conclave::DIALECT
