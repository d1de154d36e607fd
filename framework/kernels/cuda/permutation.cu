#include "framework/kernels/cuda/permutation.cuh"

#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {

namespace {

RowOrder sort_by_expert(const Tensor& experts, std::int64_t expert_count) {
  const std::int64_t slots = experts.elements(), top_k = experts.dim(1),
                     chunks = blocks_for(slots, block_threads);
  Device& device = experts.device();
  void* stream = device.stream();
  const std::int32_t* expert = experts.data<std::int32_t>();
  const Tensor counts = Tensor::zeros({chunks, expert_count}, DType::int32, device);
  // The offsets, the last of which is the number of rows, and behind them how many experts are unknown.
  const Tensor for_host = Tensor::zeros({expert_count + 2}, DType::int64, device);
  std::int64_t* offsets = for_host.data<std::int64_t>();
  launch({.blocks = chunks, .stream = stream}, count_experts_kernel, expert, slots, expert_count,
         counts.data<std::int32_t>(), offsets + expert_count);
  launch({.blocks = 1, .stream = stream}, place_experts_kernel, counts.data<std::int32_t>(), chunks,
         expert_count, offsets, offsets + expert_count);
  // The one thing that the host must wait for: how many rows each expert has.
  std::vector<std::int64_t> found = for_host.to_host<std::int64_t>();
  check(found.back() == 0, "sort_by_expert: ", found.back(), " of ", slots,
        " chosen experts are not among the ", expert_count);
  found.pop_back();
  const std::int64_t rows = found.back();
  RowOrder order;
  order.offsets = RowOffsets(for_host.part(0, {expert_count + 1}), std::move(found));
  order.row_of_slot = Tensor::empty(experts.shape(), DType::int32, device);
  order.token_of_row = Tensor::empty({rows}, DType::int32, device);
  order.slot_of_row = Tensor::empty({rows}, DType::int32, device);
  launch({.blocks = chunks, .stream = stream}, place_slots_kernel, expert, slots, top_k, expert_count,
         counts.data<std::int32_t>(), order.row_of_slot.data<std::int32_t>(),
         order.token_of_row.data<std::int32_t>(), order.slot_of_row.data<std::int32_t>());
  return order;
}

void permute_rows(const Tensor& x, const RowOrder& order, const Tensor& rows) {
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = rows.dim(0), .stream = x.device().stream()}, permute_rows_kernel<T>, x.data<T>(),
           order.token_of_row.data<std::int32_t>(), x.dim(1), rows.data<T>());
  });
}

void permute_rows_backward(const Tensor& drows, const RowOrder& order, const Tensor& dx) {
  with_storage_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = dx.dim(0), .stream = dx.device().stream()}, combine_rows_kernel<T>, drows.data<T>(),
           nullptr, order.row_of_slot.data<std::int32_t>(), order.row_of_slot.dim(1), dx.dim(1),
           dx.data<T>());
  });
}

void combine_rows(const Tensor& rows, const Tensor& weights, const RowOrder& order, const Tensor& y) {
  with_storage_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = y.dim(0), .stream = y.device().stream()}, combine_rows_kernel<T>, rows.data<T>(),
           weights.data<float>(), order.row_of_slot.data<std::int32_t>(), weights.dim(1), y.dim(1),
           y.data<T>());
  });
}

void combine_rows_backward(const Tensor& rows, const Tensor& weights, const RowOrder& order, const Tensor& dy,
                           const Tensor& drows, const Tensor& dweights) {
  const std::int64_t slots = weights.elements();
  with_storage_type(dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(warp_for_each(slots, dy.device().stream()), combine_rows_backward_kernel<T>, rows.data<T>(),
           weights.data<float>(), order.row_of_slot.data<std::int32_t>(), dy.data<T>(), slots, weights.dim(1),
           dy.dim(1), drows.data<T>(), dweights.data<float>());
  });
}

}  // namespace

void put_permutation(Kernels& kernels) {
  kernels.sort_by_expert = sort_by_expert;
  kernels.permute_rows = permute_rows;
  kernels.permute_rows_backward = permute_rows_backward;
  kernels.combine_rows = combine_rows;
  kernels.combine_rows_backward = combine_rows_backward;
}

}  // namespace conclave::DIALECT
