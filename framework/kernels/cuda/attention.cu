#include "framework/kernels/cuda/attention.cuh"

#include "framework/kernels/cuda/attention_backward.cuh"
#include "framework/kernels/cuda/attention_tiles.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {
namespace {

AttentionSizes sizes_of(const Tensor& query, const Tensor& key, const Tensor& document_start,
                        std::int64_t head_width, double scale) {
  const AttentionSizes sizes{query.dim(0),
                             query.dim(1),
                             query.dim(2) / head_width,
                             key.dim(2) / head_width,
                             head_width,
                             static_cast<float>(scale)};
  check(sizes.kv_heads > 0 && sizes.heads % sizes.kv_heads == 0 && key.dim(0) == sizes.sequences &&
            key.dim(1) == sizes.length,
        "attention: query ", query.shape(), " and key ", key.shape(), " with head width ", head_width,
        " do not match");
  check_tensor(document_start, "attention", "document_start", {sizes.sequences, sizes.length}, DType::int32);
  return sizes;
}

/// Calls function(std::integral_constant) with how many columns of a head each of a row's threads sums.
template <class Function>
void with_columns_per_thread(std::int64_t width, Function&& function) {
  check(width <= 256, Fault::request, "attention: heads of a GPU are at most 256 wide, model.head_dim ",
        width, " came");
  if (width <= 64) return function(std::integral_constant<int, 8>{});
  if (width <= 128) return function(std::integral_constant<int, 16>{});
  function(std::integral_constant<int, 32>{});
}

/// A block of shared memory with so many rows of a head and of scores.
LaunchShape shape_of(const AttentionSizes& z, std::int64_t blocks, int rows, int score_rows, void* stream) {
  const std::size_t floats = static_cast<std::size_t>(rows * z.stride() + score_rows * score_stride);
  return {.blocks = blocks, .shared_bytes = floats * sizeof(float), .stream = stream};
}

void attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& document_start,
               std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp) {
  const AttentionSizes z = sizes_of(query, key, document_start, head_width, scale);
  check_tensor(out, "attention", "out", query.shape(), query.dtype());
  check_tensor(log_sum_exp, "attention", "log_sum_exp", {z.sequences, z.heads, z.length},
               sum_type(query.dtype()));
  // The one place where the path is chosen: another library's attention would come in here.
  const AttentionTensors tensors{query, key, value, document_start, out, log_sum_exp};
  if (attention_fits_tiles(z, tensors)) return attention_on_tiles(z, tensors);
  with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    with_columns_per_thread(head_width, [&](auto columns) {
      launch(shape_of(z, z.sequences * z.heads * z.tiles(), own_rows + 2 * walk_rows, own_rows,
                      query.device().stream()),
             attention_kernel<columns(), T>, z, query.data<T>(), key.data<T>(), value.data<T>(),
             document_start.data<std::int32_t>(), z.tiles(), out.data<T>(), log_sum_exp.data<float>());
    });
  });
}

void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                        const Tensor& document_start, std::int64_t head_width, double scale,
                        const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                        const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) {
  const AttentionSizes z = sizes_of(query, key, document_start, head_width, scale);
  check_tensor(dout, "attention_backward", "dout", query.shape(), query.dtype());
  void* stream = query.device().stream();
  const Tensor delta = Tensor::empty({z.sequences, z.heads, z.length}, DType::float32, query.device());
  const AttentionTensors tensors{query,       key,  value,  document_start, out,
                                 log_sum_exp, dout, dquery, dkey,           dvalue};
  const bool on_tiles = attention_fits_tiles(z, tensors);
  with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(warp_for_each(delta.elements(), stream), attention_delta_kernel<T>, z, out.data<T>(),
           dout.data<T>(), delta.data<float>());
    if (on_tiles) return attention_backward_on_tiles(z, tensors, delta);
    const AttentionInput<T> input{
        query.data<T>(),           key.data<T>(),  value.data<T>(),    document_start.data<std::int32_t>(),
        log_sum_exp.data<float>(), dout.data<T>(), delta.data<float>()};
    const int rows = 2 * own_rows + 2 * walk_rows;
    with_columns_per_thread(head_width, [&](auto columns) {
      launch(shape_of(z, z.sequences * z.heads * z.tiles(), rows, own_rows, stream),
             attention_dquery_kernel<columns(), T>, z, input, z.tiles(), dquery.data<T>());
      launch(shape_of(z, z.sequences * z.kv_heads * z.tiles(), rows, 2 * own_rows, stream),
             attention_dkey_dvalue_kernel<columns(), T>, z, input, z.tiles(), dkey.data<T>(),
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
