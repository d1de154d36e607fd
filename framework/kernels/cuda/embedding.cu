#include "framework/kernels/cuda/embedding.cuh"

#include "framework/kernels/cuda/device_kernels.h"
#include "framework/kernels/rope.h"

namespace conclave::DIALECT {

namespace {

void embedding(const Tensor& tokens, const Tensor& weight, const Tensor& y) {
  const std::int64_t count = tokens.elements(), vocabulary = weight.dim(0), hidden = weight.dim(1);
  check_tensor(y, "embedding", "y", {count, hidden}, weight.dtype());
  with_storage_type(weight.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = count, .stream = y.device().stream()}, embedding_kernel<T>, tokens.data<std::int32_t>(),
           weight.data<T>(), vocabulary, hidden, y.data<T>());
  });
}

void embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight, Write write) {
  const std::int64_t count = tokens.elements(), vocabulary = dweight.dim(0), hidden = dweight.dim(1);
  check_tensor(dy, "embedding_backward", "dy", {count, hidden}, dy.dtype());
  if (write == Write::overwrite) dweight.fill_zero();
  with_storage_type(dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    with_result_type<T>("embedding_backward", dweight.dtype(), [&](auto result) {
      using U = decltype(result);
      launch({.blocks = count, .stream = dy.device().stream()}, embedding_backward_kernel<T, U>,
             tokens.data<std::int32_t>(), count, vocabulary, dy.data<T>(), hidden, dweight.data<U>());
    });
  });
}

void rope(const Tensor& x, const Tensor& positions, const RopeFrequencies& frequencies,
          std::int64_t rotary_width, Rotation rotation, const Tensor& y) {
  const std::int64_t tokens = x.dim(0), heads = x.dim(1), width = x.dim(2);
  check_rope(x, positions, rotary_width, y);
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = blocks_for(tokens * (width / 2), block_threads), .stream = x.device().stream()},
           rope_kernel<T>, x.data<T>(), positions.data<std::int32_t>(), frequencies, rotary_width,
           rotation == Rotation::forward ? 1.0f : -1.0f, tokens, heads, width, y.data<T>());
  });
}

}  // namespace

void put_embedding(Kernels& kernels) {
  kernels.embedding = embedding;
  kernels.embedding_backward = embedding_backward;
  kernels.family<RopeKernels>().rope = rope;
}

}  // namespace conclave::DIALECT
