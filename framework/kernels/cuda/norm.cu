#include "framework/kernels/cuda/norm.cuh"

#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {

namespace {

void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, const Tensor& y,
              const Tensor& inverse_rms) {
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  check_tensor(weight, "rms_norm", "weight", {width}, x.dtype());
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(warp_for_each(rows, x.device().stream()), rms_norm_kernel<T>, x.data<T>(), weight.data<T>(),
           static_cast<float>(epsilon), rows, width, y.data<T>(), inverse_rms.data<float>());
  });
}

void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& dy,
                       const Tensor& dx, const Tensor& dweight, Write write_dweight) {
  const std::int64_t rows = x.dim(0), width = x.dim(1), chunks = blocks_for(rows, norm_chunk);
  void* stream = x.device().stream();
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(warp_for_each(rows, stream), rms_norm_dx_kernel<T>, x.data<T>(), weight.data<T>(),
           inverse_rms.data<float>(), dy.data<T>(), rows, width, dx.data<T>());
    if (!dweight.defined()) return;
    const Tensor of_chunk = Tensor::empty({chunks, width}, DType::float32, x.device());
    launch({.blocks = blocks_for(chunks * width, block_threads), .stream = stream},
           rms_norm_dweight_kernel<T>, x.data<T>(), inverse_rms.data<float>(), dy.data<T>(), rows, width,
           of_chunk.data<float>());
    with_result_type<T>("rms_norm_backward", dweight.dtype(), [&](auto result) {
      using U = decltype(result);
      launch({.blocks = blocks_for(width, block_threads), .stream = stream}, sum_rows_kernel<U>,
             of_chunk.data<float>(), chunks, width, write_dweight == Write::accumulate, dweight.data<U>());
    });
  });
}

}  // namespace

void put_norm(Kernels& kernels) {
  kernels.rms_norm = rms_norm;
  kernels.rms_norm_backward = rms_norm_backward;
}

}  // namespace conclave::DIALECT
