#include "framework/kernels/cuda/elementwise.cuh"

#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {
namespace {

void check_same(const char* where, const Tensor& first, const Tensor& second) {
  check(first.elements() == second.elements() && first.dtype() == second.dtype(), where, ": ",
        name_of(first.dtype()), " ", first.shape(), " and ", name_of(second.dtype()), " ", second.shape(),
        " came, expected the same");
}

LaunchShape walk(const Tensor& x) {
  return walk_over(x.elements(), x.device().stream());
}

void convert(const Tensor& x, const Tensor& y) {
  check(x.elements() == y.elements(), "convert: ", x.shape(), " came for ", y.shape());
  with_storage_type(x.dtype(), [&](auto from) {
    with_storage_type(y.dtype(), [&](auto to) {
      using T = decltype(from);
      using U = decltype(to);
      launch(walk(x), convert_kernel<T, U>, x.data<T>(), y.data<U>(), x.elements());
    });
  });
}

void add_scaled(const Tensor& x, double factor, const Tensor& y) {
  check(x.elements() == y.elements(), "add_scaled: ", x.shape(), " came for ", y.shape());
  if (x.dtype() == DType::float64)
    return launch(walk(x), add_scaled_losses_kernel, x.data<double>(), factor, y.data<double>(),
                  x.elements());
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    with_result_type<T>("add_scaled", y.dtype(), [&](auto result) {
      using U = decltype(result);
      launch(walk(x), add_scaled_kernel<T, U>, x.data<T>(), static_cast<float>(factor), y.data<U>(),
             x.elements());
    });
  });
}

void add(const Tensor& a, const Tensor& b, const Tensor& sum) {
  check_same("add", a, b);
  check_same("add", a, sum);
  with_storage_type(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(walk(a), add_kernel<T>, a.data<T>(), b.data<T>(), sum.data<T>(), a.elements());
  });
}

void sum_of_squares(const Tensor& x, const Tensor& sum, Write write) {
  check_tensor(sum, "sum_of_squares", "sum", {1}, DType::float64);
  const std::int64_t pieces = blocks_for(x.elements(), squares_piece);
  const Tensor of_piece = Tensor::empty({pieces}, DType::float64, x.device());
  void* stream = x.device().stream();
  with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch({.blocks = pieces, .stream = stream}, sum_of_squares_kernel<T>, x.data<T>(), x.elements(),
           of_piece.data<double>());
  });
  launch({.blocks = 1, .stream = stream}, sum_kernel, of_piece.data<double>(), pieces, std::int64_t{1},
         write == Write::accumulate, sum.data<double>());
}

void sum_of_squares_of_pieces(const Tensor& x, const Pieces& pieces, const Tensor& sum) {
  check_tensor(sum, "sum_of_squares", "sum", {1}, DType::float64);
  const Tensor of_piece = Tensor::empty({pieces.count()}, DType::float64, x.device());
  void* stream = x.device().stream();
  launch({.blocks = pieces.count(), .stream = stream}, squares_of_pieces_kernel,
         check_float32("sum_of_squares", x), pieces.table.data<std::int64_t>(),
         pieces.settings.data<double>(), of_piece.data<double>());
  launch({.blocks = 1, .stream = stream}, sum_kernel, of_piece.data<double>(), pieces.count(),
         std::int64_t{1}, false, sum.data<double>());
}

void weighted_sum(const Tensor& x, const Tensor& factors, const Tensor& sum) {
  check_tensor(factors, "weighted_sum", "factors", x.shape(), DType::float64);
  check_tensor(sum, "weighted_sum", "sum", {1}, DType::float64);
  launch({.blocks = 1, .stream = x.device().stream()}, weighted_sum_kernel, x.data<double>(),
         factors.data<double>(), x.elements(), sum.data<double>());
}

void multiply(const Tensor& x, const Tensor& factor, const Tensor& y) {
  check_tensor(factor, "multiply", "factor", {1}, DType::float64);
  check_tensor(y, "multiply", "y", x.shape(), DType::float64);
  launch(walk(x), multiply_kernel, x.data<double>(), factor.data<double>(), y.data<double>(), x.elements());
}

void swiglu(const Tensor& gate, const Tensor& up, const Tensor& y) {
  check_same("swiglu", gate, up);
  check_same("swiglu", gate, y);
  with_storage_type(gate.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(walk(gate), swiglu_kernel<T>, gate.data<T>(), up.data<T>(), y.data<T>(), gate.elements());
  });
}

void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate,
                     const Tensor& dup) {
  check_same("swiglu_backward", gate, dy);
  with_storage_type(gate.dtype(), [&](auto zero) {
    using T = decltype(zero);
    launch(walk(gate), swiglu_backward_kernel<T>, gate.data<T>(), up.data<T>(), dy.data<T>(), dgate.data<T>(),
           dup.data<T>(), gate.elements());
  });
}

void adamw(const AdamWStep& step, const Pieces& pieces, const Tensor& gradient, const Tensor& value,
           const Tensor& moment1, const Tensor& moment2) {
  check_same("adamw", gradient, value);
  check_same("adamw", moment1, moment2);
  const AdamWNumbers numbers{.learning_rate = step.learning_rate,
                             .correction1 = step.correction1,
                             .beta1 = static_cast<float>(step.beta1),
                             .beta2 = static_cast<float>(step.beta2),
                             .keep1 = static_cast<float>(1 - step.beta1),
                             .keep2 = static_cast<float>(1 - step.beta2),
                             .gradient_scale = static_cast<float>(step.gradient_scale),
                             .epsilon = static_cast<float>(step.epsilon),
                             .inverse_correction2 = static_cast<float>(1 / step.correction2)};
  launch({.blocks = pieces.count(), .stream = value.device().stream()}, adamw_kernel, numbers,
         pieces.table.data<std::int64_t>(), pieces.settings.data<double>(), check_float32("adamw", gradient),
         value.data<float>(), moment1.data<float>(), moment2.data<float>());
}

}  // namespace

void put_elementwise(Kernels& kernels) {
  kernels.convert = convert;
  kernels.add_scaled = add_scaled;
  kernels.add = add;
  kernels.sum_of_squares = sum_of_squares;
  kernels.sum_of_squares_of_pieces = sum_of_squares_of_pieces;
  kernels.weighted_sum = weighted_sum;
  kernels.multiply = multiply;
  kernels.swiglu = swiglu;
  kernels.swiglu_backward = swiglu_backward;
  kernels.adamw = adamw;
}

}  // namespace conclave::DIALECT
