// Sums, SwiGLU, RMSNorm and AdamW against their textbook formulas.
#include <algorithm>
#include <cmath>

#include "framework/kernels/bias.h"
#include "framework/kernels/reciprocal.h"
#include "tests/framework/kernels/op_table.h"

namespace conclave::test {
namespace {

void add_sums(std::vector<OpCase>& cases, std::int64_t count) {
  const Values a = draw("a", count), b = draw("b", count);
  Values sum(a.size()), added(a.size());
  long double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum[i] = a[i] + b[i];
    added[i] = b[i] + 0.3 * a[i];
    squares += a[i] * a[i];
  }
  OpCase op{join_text("sums_", count), 1, [](const Kernels& kernels, const Arguments& x) {
              kernels.add(x["a"], x["b"], x["sum"]);
              kernels.add_scaled(x["a"], 0.3, x["added"]);
              kernels.add_scaled(x["a"], 0.3, x["added_to_sums"]);
              kernels.sum_of_squares(x["a"], x["squares"], Write::overwrite);
              kernels.sum_of_squares(x["a"], x["more_squares"], Write::accumulate);
            }};
  op.input("a", {count}, a).input("b", {count}, b).output("sum", {count}, sum);
  cases.push_back(op.update("added", {count}, b, added)
                      .update("added_to_sums", {count}, b, added, Type::sums)
                      .output("squares", {1}, {static_cast<double>(squares)}, Type::float64)
                      .update("more_squares", {1}, {5}, {5 + static_cast<double>(squares)}, Type::float64));
}

/// More rows than one chunk of a sum.
void add_biases(std::vector<OpCase>& cases, std::int64_t rows, std::int64_t width) {
  const Values x = draw("x", rows * width), bias = draw("bias", width);
  Values y = x, sum(bias.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i] += bias[i % bias.size()];
    sum[i % bias.size()] += x[i];
  }
  for (const Write write : {Write::overwrite, Write::accumulate}) {
    OpCase op{join_text("biases_", rows, 'x', width, write == Write::overwrite ? "" : "_accumulate"),
              static_cast<double>(rows), [write](const Kernels& kernels, const Arguments& a) {
                const auto& family = kernels.family<BiasKernels>();
                family.add_bias(a["x"], a["bias"], a["y"]);
                family.sum_of_rows(a["x"], a["sum"], write);
                family.sum_of_rows(a["x"], a["sum_in_full"], write);
              }};
    op.input("x", {rows, width}, x).input("bias", {width}, bias).output("y", {rows, width}, y);
    cases.push_back(
        op.written("sum", {width}, write, sum).written("sum_in_full", {width}, write, sum, Type::sums));
  }
}

/// The ops that losses are made of: float64 on every device.
void add_losses_case(std::vector<OpCase>& cases, std::int64_t count) {
  const Values a = draw("a", count), b = draw("b", count);
  Values multiplied(a.size()), added(a.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
    multiplied[i] = -0.7 * a[i];
    added[i] = b[i] + 0.3 * a[i];
  }
  OpCase op{join_text("losses_", count), static_cast<double>(count),
            [](const Kernels& kernels, const Arguments& x) {
              kernels.weighted_sum(x["a"], x["b"], x["sum"]);
              kernels.multiply(x["a"], x["factor"], x["multiplied"]);
              kernels.add_scaled(x["a"], 0.3, x["added"]);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("a", {count}, a, Type::float64).input("b", {count}, b, Type::float64);
  op.input("factor", {1}, {-0.7}, Type::float64).output("sum", {1}, {sum}, Type::float64);
  op.output("multiplied", {count}, multiplied, Type::float64);
  cases.push_back(op.update("added", {count}, b, added, Type::float64));
}

/// Between a type and its sums, both ways; what bfloat16 rounds to is told to the bit in op_table_test.
void add_convert(std::vector<OpCase>& cases, std::int64_t count) {
  const Values narrow = draw("narrow", count), part = draw("part", count, 1e-3);
  Values wide(narrow.size());
  for (std::size_t i = 0; i < wide.size(); ++i) wide[i] = static_cast<float>(narrow[i] + part[i]);
  OpCase op{join_text("convert_", count), 1, [](const Kernels& kernels, const Arguments& a) {
              kernels.convert(a["narrow"], a["widened"]);
              kernels.convert(a["wide"], a["narrowed"]);
              kernels.convert(a["narrow"], a["copied"]);
            }};
  op.input("narrow", {count}, narrow).input("wide", {count}, wide, Type::sums);
  op.output("widened", {count}, narrow, Type::sums).output("narrowed", {count}, wide);
  cases.push_back(op.output("copied", {count}, narrow));
}

void add_swiglu(std::vector<OpCase>& cases, std::int64_t rows, std::int64_t width, double scale) {
  const Values gate = draw("gate", rows * width, scale), up = draw("up", rows * width),
               dy = draw("dy", rows * width);
  Values y(gate.size()), dgate(gate.size()), dup(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double s = 1 / (1 + std::exp(-gate[i]));
    y[i] = gate[i] * s * up[i];
    dup[i] = dy[i] * gate[i] * s;
    dgate[i] = dy[i] * up[i] * (s + gate[i] * s * (1 - s));
  }
  const Shape shape{rows, width};
  OpCase op{join_text("swiglu_", rows, 'x', width, "_scale_", scale), 1,
            [](const Kernels& kernels, const Arguments& a) {
              kernels.swiglu(a["gate"], a["up"], a["y"]);
              kernels.swiglu_backward(a["gate"], a["up"], a["dy"], a["dgate"], a["dup"]);
            }};
  op.input("gate", shape, gate).input("up", shape, up).input("dy", shape, dy).output("y", shape, y);
  cases.push_back(op.output("dgate", shape, dgate).output("dup", shape, dup));
}

void add_rms_norm(std::vector<OpCase>& cases, std::int64_t rows, std::int64_t width, Write write) {
  constexpr double epsilon = 1e-5;
  const Values x = draw("x", rows * width), weight = draw("weight", width), dy = draw("dy", rows * width);
  Values y(x.size()), inverse_rms(static_cast<std::size_t>(rows)), dx(x.size()), dweight(weight.size());
  const std::size_t n = static_cast<std::size_t>(width);
  for (std::size_t r = 0; r < inverse_rms.size(); ++r) {
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) squares += x[r * n + i] * x[r * n + i];
    const double rms = std::sqrt(squares / static_cast<double>(width) + epsilon);
    inverse_rms[r] = 1 / rms;
    for (std::size_t i = 0; i < n; ++i) {
      y[r * n + i] = weight[i] * x[r * n + i] / rms;
      dweight[i] += dy[r * n + i] * x[r * n + i] / rms;
      // The Jacobian of x / rms row by row: (I - x x^T / (width rms^2)) / rms.
      for (std::size_t j = 0; j < n; ++j)
        dx[r * n + i] +=
            weight[j] * dy[r * n + j] *
            ((i == j ? 1.0 : 0.0) - x[r * n + i] * x[r * n + j] / (static_cast<double>(width) * rms * rms)) /
            rms;
    }
  }
  const Shape shape{rows, width};
  OpCase op{join_text("rms_norm_", rows, 'x', width, write == Write::accumulate ? "_add" : ""),
            static_cast<double>(rows + width), [=](const Kernels& kernels, const Arguments& a) {
              kernels.rms_norm(a["x"], a["weight"], epsilon, a["y"], a["inverse_rms"]);
              kernels.rms_norm_backward(a["x"], a["weight"], a["inverse_rms"], a["dy"], a["dx_alone"],
                                        Tensor(), write);
              kernels.rms_norm_backward(a["x"], a["weight"], a["inverse_rms"], a["dy"], a["dx"], a["dweight"],
                                        write);
              kernels.rms_norm_backward(a["x"], a["weight"], a["inverse_rms"], a["dy"], a["dx"],
                                        a["dweight_sums"], write);
            }};
  op.input("x", shape, x).input("weight", {width}, weight).input("dy", shape, dy).output("y", shape, y);
  op.output("inverse_rms", {rows}, inverse_rms, Type::sums);
  op.output("dx", shape, dx).output("dx_alone", shape, dx).written("dweight", {width}, write, dweight);
  cases.push_back(op.written("dweight_sums", {width}, write, dweight, Type::sums));
}

/// Two spans with a gap between them that nobody may touch, while their moments lie side by side.
void add_adamw(std::vector<OpCase>& cases, std::int64_t count, int steps_taken, double weight_decay) {
  const double rate = 0.01, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, clip = 0.5;
  const std::int64_t first = count / 2, gap = 3, flat = count + gap;
  const std::vector<FlatSpan> spans{
      {.first = 0, .first_state = 0, .elements = first, .weight_decay = weight_decay},
      {.first = first + gap,
       .first_state = first,
       .elements = count - first,
       .factor = 0.5,
       .weight_decay = 2 * weight_decay}};
  const Values gradient = draw("gradient", flat), value = draw("value", flat);
  const Values moment1 = steps_taken == 0 ? Values(static_cast<std::size_t>(count)) : draw("moment1", count);
  Values moment2 = steps_taken == 0 ? moment1 : draw("moment2", count);
  for (double& moment : moment2) moment = std::abs(moment);
  const double correction1 = 1 - std::pow(beta1, steps_taken + 1),
               correction2 = 1 - std::pow(beta2, steps_taken + 1);
  Values new_value = value, m = moment1, v = moment2;
  double squares = 0;
  for (const FlatSpan& span : spans)
    for (std::int64_t e = 0; e < span.elements; ++e) {
      const auto i = static_cast<std::size_t>(span.first + e),
                 s = static_cast<std::size_t>(span.first_state + e);
      const double g = gradient[i] * clip;
      m[s] = beta1 * moment1[s] + (1 - beta1) * g;
      v[s] = beta2 * moment2[s] + (1 - beta2) * g * g;
      const double step = (m[s] / correction1) / (std::sqrt(v[s] / correction2) + epsilon);
      new_value[i] = value[i] - rate * span.factor * (step + span.weight_decay * value[i]);
      squares += span.factor * gradient[i] * gradient[i];
    }
  OpCase op{join_text("adamw_", count, "_step_", steps_taken, weight_decay > 0 ? "_decay" : ""), 1,
            [=](const Kernels& kernels, const Arguments& a) {
              const Pieces pieces = Pieces::of(spans, a["value"].device());
              kernels.sum_of_squares_of_pieces(a["gradient"], pieces, a["squares"]);
              kernels.adamw({.learning_rate = rate,
                             .beta1 = beta1,
                             .beta2 = beta2,
                             .epsilon = epsilon,
                             .correction1 = correction1,
                             .correction2 = correction2,
                             .gradient_scale = clip},
                            pieces, a["gradient"], a["value"], a["moment1"], a["moment2"]);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("gradient", {flat}, gradient).update("value", {flat}, value, new_value);
  op.output("squares", {1}, {squares}, Type::float64);
  cases.push_back(op.update("moment1", {count}, moment1, m).update("moment2", {count}, moment2, v));
}

/// factor / max(x, least), and its backward, above and below the least value.
void add_reciprocal(std::vector<OpCase>& cases, std::int64_t width, double x, Write write) {
  constexpr double factor = 0.75, least = 0.25;
  const Values dy = draw("dy", width);
  double sum = 0;
  for (const double value : dy) sum += value;
  OpCase op{join_text("spread_reciprocal_", width, x < least ? "_below" : "_above",
                      write == Write::accumulate ? "_added" : ""),
            static_cast<double>(width), [write](const Kernels& kernels, const Arguments& a) {
              const auto& family = kernels.family<ReciprocalKernels>();
              family.spread_reciprocal(a["x"], factor, least, a["y"]);
              family.spread_reciprocal_backward(a["x"], factor, least, a["dy"], a["dx"], write);
            }};
  op.bfloat16_runs = OpCase::BFloat16Runs::nowhere;
  op.input("x", {1}, {x}).input("dy", {width}, dy);
  op.output("y", {width}, Values(static_cast<Size>(width), factor / std::max(x, least)));
  cases.push_back(op.written("dx", {1}, write, {x < least ? 0 : -factor / (x * x) * sum}));
}

}  // namespace

std::vector<OpCase> elementwise_cases() {
  std::vector<OpCase> cases;
  for (const Write write : {Write::overwrite, Write::accumulate})
    for (const double x : {0.5, 0.125}) {
      add_reciprocal(cases, 1, x, write);
      add_reciprocal(cases, 300, x, write);
    }
  // 16384: beyond it several threads share the work; 4096: the block of the sum of squares.
  for (const std::int64_t count : {0, 1, 31, 4095, 4096, 4097, 16385, 40001}) add_sums(cases, count);
  for (const std::int64_t count : {0, 1, 31, 16385}) add_convert(cases, count);
  for (const std::int64_t count : {0, 1, 65, 1000}) add_losses_case(cases, count);
  for (const std::int64_t rows : {0, 1, 127, 129, 385}) add_biases(cases, rows, rows % 31 + 1);
  add_swiglu(cases, 0, 5, 1);
  add_swiglu(cases, 1, 1, 1);
  add_swiglu(cases, 13, 17, 1);
  add_swiglu(cases, 13, 17, 30);
  add_swiglu(cases, 131, 127, 3);
  for (const Write write : {Write::overwrite, Write::accumulate}) {
    add_rms_norm(cases, 0, 7, write);
    add_rms_norm(cases, 1, 1, write);
    add_rms_norm(cases, 5, 64, write);
    add_rms_norm(cases, 127, 13, write);  // dweight is summed over chunks of 128 rows
    add_rms_norm(cases, 129, 31, write);
    add_rms_norm(cases, 385, 3, write);
  }
  for (const std::int64_t count : {1, 13, 40001}) {  // pieces have 16384 elements
    add_adamw(cases, count, 0, 0);
    add_adamw(cases, count, 7, 0.1);
  }
  return cases;
}

}  // namespace conclave::test
