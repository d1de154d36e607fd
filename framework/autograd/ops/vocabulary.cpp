#include "framework/autograd/ops/vocabulary.h"

#include <algorithm>

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

CrossEntropy linear_cross_entropy(Tape& tape, const Variable& x, const Variable& weight,
                                  const Tensor& targets, const CrossEntropyOptions& options) {
  constexpr std::int64_t chunk = 512;  // rows of logits held at once
  const std::int64_t tokens = x.value.dim(0), hidden = x.value.dim(1), vocabulary = weight.value.dim(0);
  check_tensor(weight.value, "linear_cross_entropy", "weight", {vocabulary, hidden}, x.value.dtype());
  check_tensor(targets, "linear_cross_entropy", "targets", {tokens}, DType::int32);
  const Kernels& kernels = kernels_of(x.value);
  const DType dtype = x.value.dtype(), logit_type = sum_type(dtype);
  Device& device = x.value.device();

  // On a device a target outside gives a loss of NaN instead: reading them would wait for it.
  if (device.kind() == DeviceKind::cpu && options.parts == 1)
    for (const std::int32_t target : targets.to_host<std::int32_t>())
      check(target < vocabulary, "linear_cross_entropy: target id ", target, " is outside the vocabulary of ",
            vocabulary);

  CrossEntropy result{{}, Tensor::zeros({2}, DType::float64, device)};
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
    const Tensor of_parts = options.gather ? options.gather(statistics) : statistics;
    const Tensor log_sum_exp = Tensor::empty({end - begin}, DType::float64, device);
    kernels.cross_entropy_losses(of_parts.view({options.parts, end - begin, 3}), chunk_targets,
                                 options.parts * vocabulary, log_sum_exp, result.sums);
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

  result.objective = tape.output(Tensor::zeros({1}, DType::float64, device));
  kernels.add_scaled(result.sums.slice(0, 1), options.loss_scale, result.objective.value);
  kernels.add_scaled(result.sums.slice(1, 2), options.z_scale, result.objective.value);
  tape.record(
      "linear_cross_entropy", [x_gradient = x.gradient, dx, out_gradient = result.objective.gradient] {
        const Tensor factor = out_gradient.take();
        // Asked where it costs nothing: what a program does wrong here it does wrong on the CPU, too.
        if (factor.device().kind() == DeviceKind::cpu)
          check(factor.item() == 1.0, "linear_cross_entropy: the objective entered the loss with factor ",
                factor.item(), "; give the factor as loss_scale instead");
        if (dx.defined()) x_gradient.add(dx);
      });
  return result;
}

}  // namespace conclave
