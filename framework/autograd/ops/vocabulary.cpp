#include "framework/autograd/ops/vocabulary.h"

#include <algorithm>
#include <cmath>

namespace conclave {

Variable embedding(Tape& tape, const Tensor& tokens, const Variable& weight) {
  const Kernels& kernels = kernels_of(weight.value);
  Variable y = tape.output(
      Tensor::empty({tokens.elements(), weight.value.dim(1)}, weight.value.dtype(), weight.value.device()));
  kernels.embedding(tokens, weight.value, y.value);
  // dweight[v] = sum of dy over the positions of token v
  tape.record("embedding", [&kernels, tokens, weight_gradient = weight.gradient, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    if (!weight_gradient.needed()) return;
    const auto dweight = weight_gradient.target();
    kernels.embedding_backward(tokens, dy, dweight.tensor, dweight.write);
  });
  return y;
}

namespace {

/// Adds the rows with a target to the sums, in their order, and returns log_sum_exp, float64 [rows].
Tensor add_to_sums(const Tensor& statistics, const Tensor& targets, CrossEntropy& sums) {
  const std::vector<double> values = statistics.to_host<double>();
  const std::vector<std::int32_t> target = targets.to_host<std::int32_t>();
  std::vector<double> log_sum_exp(target.size());
  for (std::size_t row = 0; row < target.size(); ++row) {
    if (target[row] < 0) continue;
    log_sum_exp[row] = values[row * 3] + std::log(values[row * 3 + 1]);
    sums.loss_sum += log_sum_exp[row] - values[row * 3 + 2];
    sums.z_sum += log_sum_exp[row] * log_sum_exp[row];
  }
  return Tensor::from(log_sum_exp, {targets.dim(0)}, statistics.device());
}

}  // namespace

CrossEntropy linear_cross_entropy(Tape& tape, const Variable& x, const Variable& weight,
                                  const Tensor& targets, const CrossEntropyOptions& options) {
  constexpr std::int64_t chunk = 512;  // rows of logits held at once
  const std::int64_t tokens = x.value.dim(0), hidden = x.value.dim(1), vocabulary = weight.value.dim(0);
  check_tensor(weight.value, "linear_cross_entropy", "weight", {vocabulary, hidden}, x.value.dtype());
  check_tensor(targets, "linear_cross_entropy", "targets", {tokens}, DType::int32);
  const Kernels& kernels = kernels_of(x.value);
  const DType dtype = x.value.dtype(), logit_type = sum_type(dtype);
  Device& device = x.value.device();

  if (!options.join)
    for (const std::int32_t target : targets.to_host<std::int32_t>())
      check(target < vocabulary, "linear_cross_entropy: target id ", target, " is outside the vocabulary of ",
            vocabulary);

  CrossEntropy result{{}, 0, 0};
  const Tensor logits = Tensor::empty({std::min(chunk, tokens), vocabulary}, logit_type, device);
  const Tensor rounded = logit_type == dtype ? logits : Tensor::empty(logits.shape(), dtype, device);
  const bool keep_dx = tape.recording() && x.gradient.needed();
  const Tensor dx = keep_dx ? Tensor::empty(x.value.shape(), dtype, device) : Tensor();
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, tokens);
    const Tensor rows = x.value.slice(begin, end), chunk_logits = logits.slice(0, end - begin);
    kernels.gemm(rows, Transpose::no, weight.value, Transpose::yes, chunk_logits, Write::overwrite);
    const Tensor chunk_targets = targets.slice(begin, end);
    const Tensor statistics = Tensor::empty({end - begin, 3}, DType::float64, device);
    kernels.cross_entropy_statistics(chunk_logits, chunk_targets, options.first_id, statistics);
    if (options.join) options.join(statistics);
    const Tensor log_sum_exp = add_to_sums(statistics, chunk_targets, result);
    if (!tape.recording()) continue;
    kernels.cross_entropy_gradient(chunk_logits, chunk_targets, options.first_id, log_sum_exp,
                                   options.loss_scale, options.z_scale);
    // From here chunk_logits holds d objective / d logits: dx = dlogits W, dW = dlogits^T x.
    const Tensor dlogits = rounded.slice(0, end - begin);
    if (logit_type != dtype) kernels.convert(chunk_logits, dlogits);
    if (weight.gradient.needed()) {
      const auto dweight = weight.gradient.target();
      kernels.gemm(dlogits, Transpose::yes, rows, Transpose::no, dweight.tensor, dweight.write);
    }
    if (keep_dx)
      kernels.gemm(dlogits, Transpose::no, weight.value, Transpose::no, dx.slice(begin, end),
                   Write::overwrite);
  }

  const double objective = options.loss_scale * result.loss_sum + options.z_scale * result.z_sum;
  result.objective = tape.output(Tensor::from(std::vector<double>{objective}, {1}, device));
  tape.record("linear_cross_entropy",
              [x_gradient = x.gradient, dx, out_gradient = result.objective.gradient] {
                const double factor = out_gradient.take().item();
                check(factor == 1.0, "linear_cross_entropy: the objective entered the loss with factor ",
                      factor, "; give the factor as loss_scale instead");
                if (dx.defined()) x_gradient.add(dx);
              });
  return result;
}

}  // namespace conclave
