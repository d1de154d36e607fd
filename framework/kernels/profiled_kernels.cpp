#include "framework/kernels/profiled_kernels.h"

namespace conclave {
namespace {

using Work = Profile::Work;

double count(std::int64_t number) {
  return static_cast<double>(number);
}
double count(const Tensor& tensor) {
  return count(tensor.elements());
}

double bytes_of(std::initializer_list<Tensor> tensors) {
  double sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.defined() ? static_cast<double>(tensor.bytes()) : 0;
  return sum;
}

/// What is added to is read as well.
double again(const Tensor& result, Write write) {
  return write == Write::accumulate ? bytes_of({result}) : 0;
}

/// Whether the host may look at integers there without waiting.
bool host_reads(const Device& device) {
  return device.kind() == DeviceKind::cpu || device.kind() == DeviceKind::counting;
}

/// The bytes of x in these pieces; where they would have to be waited for, all of x.
double read_bytes(const Tensor& x, const Pieces& pieces) {
  if (!host_reads(x.device()) || pieces.count() == 0) return bytes_of({x});
  const std::int64_t* table = pieces.table.data<std::int64_t>();
  double elements = 0;
  for (std::int64_t i = 0; i < pieces.count(); ++i) elements += count(table[3 * i + 2]);
  return elements * static_cast<double>(element_bytes(x.dtype()));
}

/// Query columns times the keys that each of them may look at, of all heads: a score is head_width products.
/// 0 on a device, which would have to be waited for.
double scores(const Tensor& query, const Tensor& document_start, std::int64_t head_width) {
  if (!host_reads(query.device())) return 0;
  const std::int64_t length = query.dim(1);
  const std::vector<std::int32_t> start = document_start.to_host<std::int32_t>();
  double pairs = 0;
  for (std::size_t i = 0; i < start.size(); ++i)
    pairs += count(static_cast<std::int64_t>(i) % length - start[i] + 1);
  return pairs * count(query.dim(2) / head_width) * count(head_width);
}

}  // namespace

/// Calls and reports. Where kernels are queued, the time is that of queueing.
template <class Call>
auto ProfiledKernels::measured(const char* name, Work work, Call&& call) const {
  struct Report {
    const char* name;
    Work work;
    Profile::Clock::time_point begin = Profile::Clock::now();
    ~Report() { Profile::active()->add(Profile::Kind::kernel, name, begin, Profile::Clock::now(), work); }
  };
  const Report report{name, work};
  return call();
}

void ProfiledKernels::gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b,
                           const Tensor& c, Write write) const {
  return measured("gemm",
                  {bytes_of({a, b, c}) + again(c, write),
                   2 * count(c) * count(transpose_a == Transpose::no ? a.dim(1) : a.dim(0))},
                  [&] { return kernels_.gemm(a, transpose_a, b, transpose_b, c, write); });
}

void ProfiledKernels::grouped_linear(const Tensor& x, const Tensor& weight, const RowOffsets& offsets,
                                     const Tensor& y) const {
  return measured("grouped_linear", {bytes_of({x, weight, y}), 2 * count(x) * count(weight.dim(1))},
                  [&] { return kernels_.grouped_linear(x, weight, offsets, y); });
}

void ProfiledKernels::grouped_linear_dx(const Tensor& dy, const Tensor& weight, const RowOffsets& offsets,
                                        const Tensor& dx, Write write) const {
  return measured("grouped_linear_dx",
                  {bytes_of({dy, weight, dx}) + again(dx, write), 2 * count(dy) * count(weight.dim(2))},
                  [&] { return kernels_.grouped_linear_dx(dy, weight, offsets, dx, write); });
}

void ProfiledKernels::grouped_linear_dweight(const Tensor& dy, const Tensor& x, const RowOffsets& offsets,
                                             const Tensor& dweight, Write write) const {
  return measured("grouped_linear_dweight",
                  {bytes_of({dy, x, dweight}) + again(dweight, write), 2 * count(dy) * count(x.dim(1))},
                  [&] { return kernels_.grouped_linear_dweight(dy, x, offsets, dweight, write); });
}

void ProfiledKernels::convert(const Tensor& x, const Tensor& y) const {
  return measured("convert", {bytes_of({x, y})}, [&] { return kernels_.convert(x, y); });
}

void ProfiledKernels::add_scaled(const Tensor& x, double factor, const Tensor& y) const {
  return measured("add_scaled", {bytes_of({x, y, y})}, [&] { return kernels_.add_scaled(x, factor, y); });
}

void ProfiledKernels::add(const Tensor& a, const Tensor& b, const Tensor& sum) const {
  return measured("add", {bytes_of({a, b, sum})}, [&] { return kernels_.add(a, b, sum); });
}

void ProfiledKernels::sum_of_squares(const Tensor& x, const Tensor& sum, Write write) const {
  return measured("sum_of_squares", {bytes_of({x})}, [&] { return kernels_.sum_of_squares(x, sum, write); });
}

void ProfiledKernels::sum_of_squares(const Tensor& x, const Pieces& pieces, const Tensor& sum) const {
  return measured("sum_of_squares", {read_bytes(x, pieces)},
                  [&] { return kernels_.sum_of_squares(x, pieces, sum); });
}

void ProfiledKernels::weighted_sum(const Tensor& x, const Tensor& factors, const Tensor& sum) const {
  return measured("weighted_sum", {bytes_of({x, factors})},
                  [&] { return kernels_.weighted_sum(x, factors, sum); });
}

void ProfiledKernels::multiply(const Tensor& x, const Tensor& factor, const Tensor& y) const {
  return measured("multiply", {bytes_of({x, y})}, [&] { return kernels_.multiply(x, factor, y); });
}

void ProfiledKernels::swiglu(const Tensor& gate, const Tensor& up, const Tensor& y) const {
  return measured("swiglu", {bytes_of({gate, up, y}), 0, count(y)},
                  [&] { return kernels_.swiglu(gate, up, y); });
}

void ProfiledKernels::swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy,
                                      const Tensor& dgate, const Tensor& dup) const {
  return measured("swiglu_backward", {bytes_of({gate, up, dy, dgate, dup}), 0, count(dy)},
                  [&] { return kernels_.swiglu_backward(gate, up, dy, dgate, dup); });
}

void ProfiledKernels::embedding(const Tensor& tokens, const Tensor& weight, const Tensor& y) const {
  return measured("embedding", {bytes_of({y, y})}, [&] { return kernels_.embedding(tokens, weight, y); });
}

void ProfiledKernels::embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                                         Write write) const {
  return measured("embedding_backward", {bytes_of({dy, dy})},
                  [&] { return kernels_.embedding_backward(tokens, dy, dweight, write); });
}

void ProfiledKernels::rms_norm(const Tensor& x, const Tensor& weight, double epsilon, const Tensor& y,
                               const Tensor& inverse_rms) const {
  return measured("rms_norm", {bytes_of({x, y})},
                  [&] { return kernels_.rms_norm(x, weight, epsilon, y, inverse_rms); });
}

void ProfiledKernels::rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms,
                                        const Tensor& dy, const Tensor& dx, const Tensor& dweight,
                                        Write write_dweight) const {
  return measured("rms_norm_backward", {bytes_of({x, dy, dx})}, [&] {
    return kernels_.rms_norm_backward(x, weight, inverse_rms, dy, dx, dweight, write_dweight);
  });
}

void ProfiledKernels::rope(const Tensor& x, const Tensor& positions, double theta, std::int64_t rotary_width,
                           Rotation rotation, const Tensor& y) const {
  return measured("rope", {bytes_of({x, y})},
                  [&] { return kernels_.rope(x, positions, theta, rotary_width, rotation, y); });
}

void ProfiledKernels::attention(const Tensor& query, const Tensor& key, const Tensor& value,
                                const Tensor& document_start, std::int64_t head_width, double scale,
                                const Tensor& out, const Tensor& log_sum_exp) const {
  return measured(
      "attention", {bytes_of({query, key, value, out}), 4 * scores(query, document_start, head_width)}, [&] {
        return kernels_.attention(query, key, value, document_start, head_width, scale, out, log_sum_exp);
      });
}

void ProfiledKernels::attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                                         const Tensor& document_start, std::int64_t head_width, double scale,
                                         const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                                         const Tensor& dquery, const Tensor& dkey,
                                         const Tensor& dvalue) const {
  return measured("attention_backward",
                  {bytes_of({query, key, value, out, dout, dquery, dkey, dvalue}),
                   10 * scores(query, document_start, head_width)},
                  [&] {
                    return kernels_.attention_backward(query, key, value, document_start, head_width, scale,
                                                       out, log_sum_exp, dout, dquery, dkey, dvalue);
                  });
}

void ProfiledKernels::cross_entropy_statistics(const Tensor& logits, const Tensor& targets,
                                               std::int64_t first_id, const Tensor& statistics) const {
  return measured("cross_entropy_statistics", {bytes_of({logits}), 0, count(logits)},
                  [&] { return kernels_.cross_entropy_statistics(logits, targets, first_id, statistics); });
}

void ProfiledKernels::cross_entropy_losses(const Tensor& statistics, const Tensor& targets,
                                           std::int64_t vocabulary, const Tensor& log_sum_exp,
                                           const Tensor& sums) const {
  return measured("cross_entropy_losses", {bytes_of({statistics})}, [&] {
    return kernels_.cross_entropy_losses(statistics, targets, vocabulary, log_sum_exp, sums);
  });
}

void ProfiledKernels::cross_entropy_gradient(const Tensor& logits, const Tensor& targets,
                                             std::int64_t first_id, const Tensor& log_sum_exp,
                                             double loss_scale, double z_scale) const {
  return measured("cross_entropy_gradient", {bytes_of({logits, logits}), 0, count(logits)}, [&] {
    return kernels_.cross_entropy_gradient(logits, targets, first_id, log_sum_exp, loss_scale, z_scale);
  });
}

void ProfiledKernels::route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule,
                            const RouteResult& result) const {
  return measured("route", {bytes_of({logits, result.probabilities}), 0, count(logits)},
                  [&] { return kernels_.route(logits, tokens, rule, result); });
}

void ProfiledKernels::route_backward(const RouteResult& result, const RouteRule& rule, const Tensor& logits,
                                     const Tensor& dweights, const Tensor& dprobability_sums,
                                     const Tensor& dz_sum, const Tensor& dlogits) const {
  return measured("route_backward", {bytes_of({result.probabilities, dlogits}), 0, count(dlogits)}, [&] {
    return kernels_.route_backward(result, rule, logits, dweights, dprobability_sums, dz_sum, dlogits);
  });
}

void ProfiledKernels::sum_over_documents(const Tensor& logits, const Tensor& documents,
                                         const Tensor& sums) const {
  return measured("sum_over_documents", {bytes_of({logits, sums}), 0, count(logits)},
                  [&] { return kernels_.sum_over_documents(logits, documents, sums); });
}

void ProfiledKernels::mask_outside_pools(const Tensor& documents, const Tensor& sums,
                                         const Tensor& logits) const {
  return measured("mask_outside_pools", {bytes_of({sums, logits})},
                  [&] { return kernels_.mask_outside_pools(documents, sums, logits); });
}

RowOrder ProfiledKernels::sort_by_expert(const Tensor& experts, std::int64_t expert_count) const {
  return measured("sort_by_expert", {3 * bytes_of({experts})},
                  [&] { return kernels_.sort_by_expert(experts, expert_count); });
}

void ProfiledKernels::permute_rows(const Tensor& x, const RowOrder& order, const Tensor& rows) const {
  return measured("permute_rows", {bytes_of({rows, rows})},
                  [&] { return kernels_.permute_rows(x, order, rows); });
}

void ProfiledKernels::permute_rows_backward(const Tensor& drows, const RowOrder& order,
                                            const Tensor& dx) const {
  return measured("permute_rows_backward", {bytes_of({drows, dx})},
                  [&] { return kernels_.permute_rows_backward(drows, order, dx); });
}

void ProfiledKernels::combine_rows(const Tensor& rows, const Tensor& weights, const RowOrder& order,
                                   const Tensor& y) const {
  return measured("combine_rows", {bytes_of({rows, y})},
                  [&] { return kernels_.combine_rows(rows, weights, order, y); });
}

void ProfiledKernels::combine_rows_backward(const Tensor& rows, const Tensor& weights, const RowOrder& order,
                                            const Tensor& dy, const Tensor& drows,
                                            const Tensor& dweights) const {
  return measured("combine_rows_backward", {bytes_of({rows, drows, dy})},
                  [&] { return kernels_.combine_rows_backward(rows, weights, order, dy, drows, dweights); });
}

void ProfiledKernels::adamw(const AdamWStep& step, const Pieces& pieces, const Tensor& gradient,
                            const Tensor& value, const Tensor& moment1, const Tensor& moment2) const {
  return measured("adamw", {7 * bytes_of({moment1})},
                  [&] { return kernels_.adamw(step, pieces, gradient, value, moment1, moment2); });
}

}  // namespace conclave
