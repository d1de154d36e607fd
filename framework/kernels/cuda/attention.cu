#include "framework/kernels/cuda/attention.cuh"

#include <algorithm>

#include "framework/kernels/cuda/attention_backward.cuh"
#include "framework/kernels/cuda/attention_tiles.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {
namespace {

/// Calls function(std::integral_constant) with how many columns of a head each of a row's threads sums.
template <class Function>
void with_columns_per_thread(std::int64_t width, Function&& function) {
  check(width <= 256, Fault::request,
        "attention: on a GPU heads (model.head_dim) and values are at most 256 wide, ", width, " came");
  if (width <= 64) return function(std::integral_constant<int, 8>{});
  if (width <= 128) return function(std::integral_constant<int, 16>{});
  function(std::integral_constant<int, 32>{});
}

/// A block of shared memory with so many rows of a head, as many of values, and rows of scores.
LaunchShape shape_of(const AttentionSizes& z, std::int64_t blocks, int rows, int value_rows, int score_rows,
                     void* stream) {
  const std::size_t floats = static_cast<std::size_t>(
      rows * padded(z.head_width) + value_rows * padded(z.value_width) + score_rows * score_stride);
  return {.blocks = blocks, .shared_bytes = floats * sizeof(float), .stream = stream};
}

void attention(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
               std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp) {
  const AttentionSizes z{attention_shape(query, key, value, ranges, head_width), static_cast<float>(scale)};
  check_tensor(out, "attention", "out", z.out(), query.dtype());
  check_tensor(log_sum_exp, "attention", "log_sum_exp", z.log_sum_exp(), sum_type(query.dtype()));
  // The one place where the path is chosen: another library's attention would come in here.
  const AttentionTensors tensors{query, key, value, ranges, out, log_sum_exp};
  if (attention_fits_tiles(z, tensors)) return attention_on_tiles(z, tensors);
  const std::int64_t tiles = blocks_for(z.queries, own_rows);
  with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    with_columns_per_thread(std::max(z.head_width, z.value_width), [&](auto columns) {
      launch(shape_of(z, z.sequences * z.heads * tiles, own_rows + walk_rows, walk_rows, own_rows,
                      query.device().stream()),
             attention_kernel<columns(), T>, z, query.data<T>(), key.data<T>(), value.data<T>(),
             ranges.first.data<std::int32_t>(), ranges.last.data<std::int32_t>(), tiles, out.data<T>(),
             log_sum_exp.data<float>());
    });
  });
}

void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
                        std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp,
                        const Tensor& dout, const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) {
  const AttentionSizes z{attention_shape(query, key, value, ranges, head_width), static_cast<float>(scale)};
  check_tensor(dout, "attention_backward", "dout", z.out(), query.dtype());
  void* stream = query.device().stream();
  const Tensor delta = Tensor::empty(z.log_sum_exp(), DType::float32, query.device());
  const AttentionTensors tensors{query, key, value, ranges, out, log_sum_exp, dout, dquery, dkey, dvalue};
  const bool on_tiles = attention_fits_tiles(z, tensors);
  with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(warp_for_each(delta.elements(), stream), attention_delta_kernel<T>, z, out.data<T>(),
           dout.data<T>(), delta.data<float>());
    if (on_tiles) return attention_backward_on_tiles(z, tensors, delta);
    const AttentionInput<T> input{query.data<T>(),
                                  key.data<T>(),
                                  value.data<T>(),
                                  ranges.first.data<std::int32_t>(),
                                  ranges.last.data<std::int32_t>(),
                                  log_sum_exp.data<float>(),
                                  dout.data<T>(),
                                  delta.data<float>()};
    const int rows = own_rows + walk_rows;
    const std::int64_t query_tiles = blocks_for(z.queries, own_rows),
                       key_tiles = blocks_for(z.keys, own_rows);
    with_columns_per_thread(std::max(z.head_width, z.value_width), [&](auto columns) {
      launch(shape_of(z, z.sequences * z.heads * query_tiles, rows, rows, own_rows, stream),
             attention_dquery_kernel<columns(), T>, z, input, query_tiles, dquery.data<T>());
      launch(shape_of(z, z.sequences * z.kv_heads * key_tiles, rows, rows, 2 * own_rows, stream),
             attention_dkey_dvalue_kernel<columns(), T>, z, input, key_tiles, dkey.data<T>(),
             dvalue.data<T>());
    });
  });
}

}  // namespace

void put_attention(Kernels& kernels) {
  kernels.attention = attention;
  kernels.attention_backward = attention_backward;
}

}  // namespace conclave::DIALECT
