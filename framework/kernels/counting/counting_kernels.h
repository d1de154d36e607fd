// CountingKernels: what a step needs without its numbers. Floating-point results are left as they are; the
// choice of experts, its counts and the order of rows are computed, and working memory is taken as the CPU
// takes it. What each kernel has to do, ProfiledKernels says.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

class CountingKernels final : public Kernels {
 public:
  void gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b, const Tensor& c,
            Write write) const override;
  void grouped_linear(const Tensor& x, const Tensor& weight, const RowOffsets& offsets,
                      const Tensor& y) const override;
  void grouped_linear_dx(const Tensor& dy, const Tensor& weight, const RowOffsets& offsets, const Tensor& dx,
                         Write write) const override;
  void grouped_linear_dweight(const Tensor& dy, const Tensor& x, const RowOffsets& offsets,
                              const Tensor& dweight, Write write) const override;
  void convert(const Tensor& x, const Tensor& y) const override;
  void add_scaled(const Tensor& x, double factor, const Tensor& y) const override;
  void add(const Tensor& a, const Tensor& b, const Tensor& sum) const override;
  void sum_of_squares(const Tensor& x, const Tensor& sum, Write write) const override;
  void sum_of_squares(const Tensor& x, const Pieces& pieces, const Tensor& sum) const override;
  void weighted_sum(const Tensor& x, const Tensor& factors, const Tensor& sum) const override;
  void multiply(const Tensor& x, const Tensor& factor, const Tensor& y) const override;
  void swiglu(const Tensor& gate, const Tensor& up, const Tensor& y) const override;
  void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate,
                       const Tensor& dup) const override;
  void embedding(const Tensor& tokens, const Tensor& weight, const Tensor& y) const override;
  void embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                          Write write) const override;
  void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, const Tensor& y,
                const Tensor& inverse_rms) const override;
  void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& dy,
                         const Tensor& dx, const Tensor& dweight, Write write_dweight) const override;
  void rope(const Tensor& x, const Tensor& positions, double theta, std::int64_t rotary_width,
            Rotation rotation, const Tensor& y) const override;
  void attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& document_start,
                 std::int64_t head_width, double scale, const Tensor& out,
                 const Tensor& log_sum_exp) const override;
  void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                          const Tensor& document_start, std::int64_t head_width, double scale,
                          const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                          const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) const override;
  void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                const Tensor& statistics) const override;
  void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, std::int64_t vocabulary,
                            const Tensor& log_sum_exp, const Tensor& sums) const override;
  void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                              const Tensor& log_sum_exp, double loss_scale, double z_scale) const override;
  void route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule,
             const RouteResult& result) const override;
  void route_backward(const RouteResult& result, const RouteRule& rule, const Tensor& logits,
                      const Tensor& dweights, const Tensor& dprobability_sums, const Tensor& dz_sum,
                      const Tensor& dlogits) const override;
  void sum_over_documents(const Tensor& logits, const Tensor& documents, const Tensor& sums) const override;
  void mask_outside_pools(const Tensor& documents, const Tensor& sums, const Tensor& logits) const override;
  RowOrder sort_by_expert(const Tensor& experts, std::int64_t expert_count) const override;
  void permute_rows(const Tensor& x, const RowOrder& order, const Tensor& rows) const override;
  void permute_rows_backward(const Tensor& drows, const RowOrder& order, const Tensor& dx) const override;
  void combine_rows(const Tensor& rows, const Tensor& weights, const RowOrder& order,
                    const Tensor& y) const override;
  void combine_rows_backward(const Tensor& rows, const Tensor& weights, const RowOrder& order,
                             const Tensor& dy, const Tensor& drows, const Tensor& dweights) const override;
  void adamw(const AdamWStep& step, const Pieces& pieces, const Tensor& gradient, const Tensor& value,
             const Tensor& moment1, const Tensor& moment2) const override;
};

}  // namespace conclave
