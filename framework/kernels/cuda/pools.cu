#include "framework/kernels/cuda/pools.cuh"

#include "framework/kernels/check_route.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {

namespace {

void sum_over_documents(const Tensor& logits, const Tensor& documents, const Tensor& sums) {
  check_documents(logits, documents, sums);
  const std::int64_t tokens = logits.dim(0), experts = logits.dim(1), items = sums.elements();
  Device& device = logits.device();
  const float* in = check_float32("sum_over_documents", logits);
  const Tensor log_sum_exp = Tensor::empty({tokens}, DType::float32, device);
  launch(warp_for_each(tokens, device.stream()), log_sum_exp_kernel, in, tokens, experts,
         log_sum_exp.data<float>());
  launch({.blocks = blocks_for(items, block_threads), .stream = device.stream()}, document_sums_kernel, in,
         log_sum_exp.data<float>(), documents.data<std::int32_t>(), items, experts, sums.data<double>());
}

void mask_outside_pools(const Tensor& documents, const Tensor& sums, const Tensor& logits) {
  check_documents(logits, documents, sums);
  const std::int64_t items = sums.elements();
  check_float32("mask_outside_pools", logits);
  launch({.blocks = blocks_for(items, block_threads), .stream = logits.device().stream()},
         mask_outside_pools_kernel, sums.data<double>(), documents.data<std::int32_t>(), items, logits.dim(1),
         logits.data<float>());
}

}  // namespace

void put_pools(Kernels& kernels) {
  kernels.sum_over_documents = sum_over_documents;
  kernels.mask_outside_pools = mask_outside_pools;
}

}  // namespace conclave::DIALECT
