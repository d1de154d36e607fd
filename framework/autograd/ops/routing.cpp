#include "framework/autograd/ops/routing.h"

#include "framework/autograd/ops/elementwise.h"

namespace conclave {

namespace {

/// `choice`: undefined where the kernel is to choose.
Routing route_or_weigh(Tape& tape, const Variable& scores, const Tensor& tokens, const Tensor& choice,
                       const RouteOptions& options) {
  const Variable logits = to_type(tape, scores, sum_type(scores.value.dtype()));
  const std::int64_t count = logits.value.dim(0), experts = logits.value.dim(1);
  const DType dtype = logits.value.dtype();
  Device& device = logits.value.device();
  const Kernels& kernels = kernels_of(logits.value);
  const RouteResult result{
      .experts =
          choice.defined() ? choice.clone() : Tensor::empty({count, options.top_k}, DType::int32, device),
      .weights = Tensor::empty({count, options.top_k}, dtype, device),
      .probabilities = Tensor::empty({count, experts}, dtype, device),
      .log_sum_exp = Tensor::empty({count}, dtype, device),
      .counts = Tensor::empty({options.sequences, experts}, DType::int64, device),
      .probability_sums = Tensor::empty({options.sequences, experts}, DType::float64, device),
      .z_sum = Tensor::empty({1}, DType::float64, device),
      .first_token = options.first_token,
      .length = options.length > 0 ? options.length : count / options.sequences,
  };
  kernels.route(logits.value, tokens, options.rule, result);
  Routing routing{result.experts,
                  tape.output(result.weights),
                  {.counts = result.counts,
                   .probability_sums = tape.output(result.probability_sums),
                   .z_sum = tape.output(result.z_sum),
                   .chosen = result.experts,
                   .first_token = options.first_token},
                  result.probabilities};
  // Formulas in kernels/cpu/routing.cpp. A softmax is differentiated from its result alone.
  const Tensor kept = options.rule.score == RouteRule::Score::softmax ? Tensor() : logits.value;
  tape.record("route",
              [&kernels, result, rule = options.rule, kept, logits_gradient = logits.gradient,
               weights = routing.weights.gradient, sums = routing.statistics.probability_sums.gradient,
               z = routing.statistics.z_sum.gradient, shape = logits.value.shape()] {
                const Tensor dweights = weights.take(), dsums = sums.take(), dz = z.take();
                const Tensor dlogits = Tensor::empty(shape, dweights.dtype(), dweights.device());
                kernels.route_backward(result, rule, kept, dweights, dsums, dz, dlogits);
                logits_gradient.add(dlogits);
              });
  return routing;
}

}  // namespace

Routing route(Tape& tape, const Variable& logits, const Tensor& tokens, const RouteOptions& options) {
  return route_or_weigh(tape, logits, tokens, {}, options);
}

Routing weigh(Tape& tape, const Variable& logits, const Tensor& tokens, const Tensor& choice,
              const RouteOptions& options) {
  check_tensor(choice, "weigh", "choice", {logits.value.dim(0), choice.dim(1)}, DType::int32);
  RouteOptions given = options;
  given.top_k = choice.dim(1);
  given.rule.choice = RouteRule::Choice::given;
  return route_or_weigh(tape, logits, tokens, choice, given);
}

Variable permute_rows(Tape& tape, const Variable& x, const RowOrder& order) {
  const Kernels& kernels = kernels_of(x.value);
  const Shape shape = x.value.shape();
  Variable rows =
      tape.output(Tensor::empty({order.token_of_row.dim(0), shape[1]}, x.value.dtype(), x.value.device()));
  kernels.permute_rows(x.value, order, rows.value);
  // dx[t] = sum of drows over the rows of token t
  tape.record("permute_rows",
              [&kernels, order, shape, x_gradient = x.gradient, out_gradient = rows.gradient] {
                const Tensor drows = out_gradient.take();
                const Tensor dx = Tensor::empty(shape, drows.dtype(), drows.device());
                kernels.permute_rows_backward(drows, order, dx);
                x_gradient.add(dx);
              });
  return rows;
}

Variable combine_rows(Tape& tape, const Variable& rows, const Variable& weights, const RowOrder& order) {
  const Kernels& kernels = kernels_of(rows.value);
  const std::int64_t tokens = weights.value.dim(0);
  Variable y =
      tape.output(Tensor::empty({tokens, rows.value.dim(1)}, rows.value.dtype(), rows.value.device()));
  kernels.combine_rows(rows.value, weights.value, order, y.value);
  // drows[r] = weight dy[t], dweights[t, k] = rows[r] . dy[t]
  tape.record("combine_rows", [&kernels, rows, weights, order, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    const Tensor drows = Tensor::empty(rows.value.shape(), dy.dtype(), dy.device());
    const Tensor dweights = Tensor::empty(weights.value.shape(), weights.value.dtype(), dy.device());
    kernels.combine_rows_backward(rows.value, weights.value, order, dy, drows, dweights);
    rows.gradient.add(drows);
    weights.gradient.add(dweights);
  });
  return y;
}

Variable repeat_columns(Tape& tape, const Variable& x, std::int64_t times) {
  if (times == 1) return x;
  // As a product: y = x E with E[j, j * times + i] = 1, so dx = dy E^T.
  const std::int64_t columns = x.value.dim(1);
  const Kernels& kernels = kernels_of(x.value);
  const Tensor expand = Tensor::zeros({columns, columns * times}, x.value.dtype(), x.value.device());
  with_float_type(expand.dtype(), [&](auto zero) {
    std::vector<decltype(zero)> ones(static_cast<std::size_t>(expand.elements()));
    for (std::int64_t j = 0; j < columns * times; ++j)
      ones[static_cast<std::size_t>(j / times * columns * times + j)] = 1;
    expand.copy_from(Tensor::from(ones, expand.shape(), expand.device()));
  });
  Variable y =
      tape.output(Tensor::empty({x.value.dim(0), columns * times}, x.value.dtype(), x.value.device()));
  kernels.gemm(x.value, Transpose::no, expand, Transpose::no, y.value, Write::overwrite);
  tape.record("repeat_columns", [&kernels, expand, x_gradient = x.gradient, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    const auto dx = x_gradient.target();
    kernels.gemm(dy, Transpose::no, expand, Transpose::yes, dx.tensor, dx.write);
  });
  return y;
}

Variable weighted_sum(Tape& tape, const Variable& x, const Tensor& factors) {
  check_tensor(factors, "weighted_sum", "factors", x.value.shape(), DType::float64);
  check_tensor(x.value, "weighted_sum", "x", x.value.shape(), DType::float64);
  const Kernels& kernels = kernels_of(x.value);
  Variable sum = tape.output(Tensor::empty({1}, DType::float64, x.value.device()));
  kernels.weighted_sum(x.value, factors, sum.value);
  // dx = dsum * factors
  tape.record("weighted_sum", [&kernels, factors, x_gradient = x.gradient, out_gradient = sum.gradient] {
    const Tensor dsum = out_gradient.take();
    const Tensor dx = Tensor::empty(factors.shape(), DType::float64, factors.device());
    kernels.multiply(factors, dsum, dx);
    x_gradient.add(dx);
  });
  return sum;
}

}  // namespace conclave
