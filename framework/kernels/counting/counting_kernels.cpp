#include "framework/kernels/counting/counting_kernels.h"

#include "framework/kernels/backends.h"
#include "framework/kernels/check_route.h"
#include "framework/kernels/counting/counting_device.h"
#include "framework/kernels/cpu/attention_room.h"

namespace conclave {
namespace {

const CountingDevice::Options& options_of(const Tensor& tensor) {
  return dynamic_cast<const CountingDevice&>(tensor.device()).options();
}

}  // namespace

void CountingKernels::attention(const Tensor& query, const Tensor&, const Tensor&, const Tensor&,
                                std::int64_t head_width, double, const Tensor&, const Tensor&) const {
  cpu::attention_room.take(options_of(query).threads, query, head_width);
}

void CountingKernels::attention_backward(const Tensor& query, const Tensor&, const Tensor&, const Tensor&,
                                         std::int64_t head_width, double, const Tensor&, const Tensor&,
                                         const Tensor&, const Tensor&, const Tensor&, const Tensor&) const {
  cpu::attention_backward_room.take(options_of(query).threads, query, head_width);
}

void CountingKernels::route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule,
                            const RouteResult& result) const {
  check_route(logits, tokens, rule, result);
  const std::int64_t experts = logits.dim(1), top_k = result.experts.dim(1), count = logits.dim(0);
  const std::span ids(tokens.data<std::int32_t>(), static_cast<std::size_t>(count));
  const std::span chosen(result.experts.data<std::int32_t>(), static_cast<std::size_t>(count * top_k));
  options_of(logits).choice(ids, experts, chosen);
  result.counts.fill_zero();
  auto* counts = result.counts.data<std::int64_t>();
  auto slot = chosen.begin();
  for (std::int64_t token = 0; token < count; ++token) {
    const bool padding = ids[static_cast<std::size_t>(token)] < 0;
    std::int64_t* of_sequence = counts + (result.first_token + token) / result.length * experts;
    for (std::int64_t k = 0; k < top_k; ++k, ++slot) {
      if (padding)
        *slot = -1;
      else
        ++of_sequence[*slot];
    }
  }
}

RowOrder CountingKernels::sort_by_expert(const Tensor& experts, std::int64_t expert_count) const {
  return cpu_kernels().sort_by_expert(experts, expert_count);  // integers in the host's memory
}

// The others only write floating-point numbers.

void CountingKernels::gemm(const Tensor&, Transpose, const Tensor&, Transpose, const Tensor&, Write) const {}
void CountingKernels::grouped_linear(const Tensor&, const Tensor&, const RowOffsets&, const Tensor&) const {}
void CountingKernels::grouped_linear_dx(const Tensor&, const Tensor&, const RowOffsets&, const Tensor&,
                                        Write) const {}
void CountingKernels::grouped_linear_dweight(const Tensor&, const Tensor&, const RowOffsets&, const Tensor&,
                                             Write) const {}
void CountingKernels::convert(const Tensor&, const Tensor&) const {}
void CountingKernels::add_scaled(const Tensor&, double, const Tensor&) const {}
void CountingKernels::add(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::sum_of_squares(const Tensor&, const Tensor&, Write) const {}
void CountingKernels::sum_of_squares(const Tensor&, const Pieces&, const Tensor&) const {}
void CountingKernels::weighted_sum(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::multiply(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::swiglu(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::swiglu_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                      const Tensor&) const {}
void CountingKernels::embedding(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::embedding_backward(const Tensor&, const Tensor&, const Tensor&, Write) const {}
void CountingKernels::rms_norm(const Tensor&, const Tensor&, double, const Tensor&, const Tensor&) const {}
void CountingKernels::rms_norm_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                        const Tensor&, const Tensor&, Write) const {}
void CountingKernels::rope(const Tensor&, const Tensor&, double, std::int64_t, Rotation,
                           const Tensor&) const {}
void CountingKernels::cross_entropy_statistics(const Tensor&, const Tensor&, std::int64_t,
                                               const Tensor&) const {}
void CountingKernels::cross_entropy_losses(const Tensor&, const Tensor&, std::int64_t, const Tensor&,
                                           const Tensor&) const {}
void CountingKernels::cross_entropy_gradient(const Tensor&, const Tensor&, std::int64_t, const Tensor&,
                                             double, double) const {}
void CountingKernels::route_backward(const RouteResult&, const RouteRule&, const Tensor&, const Tensor&,
                                     const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::sum_over_documents(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::mask_outside_pools(const Tensor&, const Tensor&, const Tensor&) const {}
void CountingKernels::permute_rows(const Tensor&, const RowOrder&, const Tensor&) const {}
void CountingKernels::permute_rows_backward(const Tensor&, const RowOrder&, const Tensor&) const {}
void CountingKernels::combine_rows(const Tensor&, const Tensor&, const RowOrder&, const Tensor&) const {}
void CountingKernels::combine_rows_backward(const Tensor&, const Tensor&, const RowOrder&, const Tensor&,
                                            const Tensor&, const Tensor&) const {}
void CountingKernels::adamw(const AdamWStep&, const Pieces&, const Tensor&, const Tensor&, const Tensor&,
                            const Tensor&) const {}

}  // namespace conclave
