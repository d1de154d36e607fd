#include "framework/kernels/bias.h"

#include "framework/kernels/cuda/bias.cuh"
#include "framework/kernels/cuda/device_kernels.h"
#include "framework/kernels/cuda/norm.cuh"

namespace conclave::DIALECT {

namespace {

void add_bias(const Tensor& x, const Tensor& bias, const Tensor& y) {
  check_add_bias(x, bias, y);
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(walk_over(x.elements(), x.device().stream()), add_bias_kernel<T>, x.data<T>(), bias.data<T>(),
           x.elements(), x.dim(1), y.data<T>());
  });
}

void sum_of_rows(const Tensor& x, const Tensor& sum, Write write) {
  const std::int64_t rows = x.dim(0), width = x.dim(1), chunks = blocks_for(rows, rows_of_chunk);
  void* stream = x.device().stream();
  const Tensor of_chunk = Tensor::empty({chunks, width}, DType::float32, x.device());
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = blocks_for(chunks * width, block_threads), .stream = stream}, sum_chunks_kernel<T>,
           x.data<T>(), rows, width, rows_of_chunk, of_chunk.data<float>());
    with_result_type<T>("sum_of_rows", sum.dtype(), [&](auto result) {
      using U = decltype(result);
      launch({.blocks = blocks_for(width, block_threads), .stream = stream}, sum_rows_kernel<U>,
             of_chunk.data<float>(), chunks, width, write == Write::accumulate, sum.data<U>());
    });
  });
}

}  // namespace

void put_bias(Kernels& kernels) {
  auto& family = kernels.family<BiasKernels>();
  family.add_bias = add_bias;
  family.sum_of_rows = sum_of_rows;
}

}  // namespace conclave::DIALECT
