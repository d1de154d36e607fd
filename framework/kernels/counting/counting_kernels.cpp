// The back end of a CountingDevice: what a step needs without its numbers. Floating-point results are left as
// they are; the choice of experts, its counts and the order of rows are computed, and working memory is taken
// as the CPU takes it.
#include "framework/kernels/backends.h"
#include "framework/kernels/check_route.h"
#include "framework/kernels/counting/counting_device.h"
#include "framework/kernels/cpu/attention_room.h"

namespace conclave {
namespace {

const CountingDevice::Options& options_of(const Tensor& tensor) {
  return dynamic_cast<const CountingDevice&>(tensor.device()).options();
}

void attention(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
               std::int64_t head_width, double, const Tensor&, const Tensor&) {
  cpu::attention_room.take(options_of(query).threads, attention_shape(query, key, value, ranges, head_width),
                           query);
}

void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
                        std::int64_t head_width, double, const Tensor&, const Tensor&, const Tensor&,
                        const Tensor&, const Tensor&, const Tensor&) {
  cpu::attention_backward_room.take(options_of(query).threads,
                                    attention_shape(query, key, value, ranges, head_width), query);
}

void route(const Tensor& logits, const Tensor& tokens, const RouteRule& rule, const RouteResult& result) {
  check_route(logits, tokens, rule, result);
  const std::int64_t experts = logits.dim(1), top_k = result.experts.dim(1), count = logits.dim(0);
  const std::span ids(tokens.data<std::int32_t>(), static_cast<std::size_t>(count));
  const std::span chosen(result.experts.data<std::int32_t>(), static_cast<std::size_t>(count * top_k));
  if (rule.choice == RouteRule::Choice::best) options_of(logits).choice(ids, experts, chosen);
  result.counts.fill_zero();
  auto* counts = result.counts.data<std::int64_t>();
  auto slot = chosen.begin();
  for (std::int64_t token = 0; token < count; ++token) {
    const bool padding = ids[static_cast<std::size_t>(token)] < 0;
    std::int64_t* of_sequence = counts + (result.first_token + token) / result.length * experts;
    for (std::int64_t k = 0; k < top_k; ++k, ++slot) {
      if (padding)
        *slot = -1;
      else if (*slot >= 0)
        ++of_sequence[*slot];
    }
  }
}

void put_all(Kernels& kernels) {
  for (AnyKernel* kernel : kernels.all()) kernel->leave_out();  // most only write floating-point numbers
  kernels.attention = attention;
  kernels.attention_backward = attention_backward;
  kernels.route = route;
  kernels.sort_by_expert = cpu_kernels().sort_by_expert.function();  // integers in the host's memory
}

}  // namespace

const Kernels& counting_kernels() {
  static const Kernels kernels({put_all});
  return kernels;
}

}  // namespace conclave
