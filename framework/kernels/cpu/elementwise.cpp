#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {
namespace {

void check_same(const char* where, const Tensor& first, const Tensor& second) {
  check(first.elements() == second.elements() && first.dtype() == second.dtype(), where, ": ",
        name_of(first.dtype()), " ", first.shape(), " and ", name_of(second.dtype()), " ", second.shape(),
        " came, expected the same");
}

void convert(const Tensor& x, const Tensor& y) {
  check(x.elements() == y.elements(), "convert: ", x.shape(), " came for ", y.shape());
  cpu::with_storage_type(x.dtype(), [&](auto from) {
    cpu::with_storage_type(y.dtype(), [&](auto to) {
      using T = decltype(from);
      using U = decltype(to);
      const T* px = x.data<T>();
      U* py = y.data<U>();
      const std::int64_t count = x.elements();
#pragma omp parallel for simd if (count > cpu::small)
      for (std::int64_t i = 0; i < count; ++i)
        cpu::store(py + i, static_cast<cpu::Sum<U>>(cpu::load(px + i)));
    });
  });
}

void add_scaled(const Tensor& x, double factor, const Tensor& y) {
  check(x.elements() == y.elements(), "add_scaled: ", x.shape(), " came for ", y.shape());
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    cpu::with_result_type<T>("add_scaled", y.dtype(), [&](auto result) {
      using U = decltype(result);
      const T* px = x.data<T>();
      U* py = y.data<U>();
      const auto scale_by = static_cast<cpu::Sum<T>>(factor);
      const std::int64_t count = x.elements();
#pragma omp parallel for simd if (count > cpu::small)
      for (std::int64_t i = 0; i < count; ++i)
        cpu::store(py + i, cpu::load(py + i) + scale_by * cpu::load(px + i));
    });
  });
}

void add(const Tensor& a, const Tensor& b, const Tensor& sum) {
  check_same("add", a, b);
  check_same("add", a, sum);
  cpu::with_storage_type(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *pa = a.data<T>(), *pb = b.data<T>();
    T* ps = sum.data<T>();
    const std::int64_t count = a.elements();
#pragma omp parallel for simd if (count > cpu::small)
    for (std::int64_t i = 0; i < count; ++i) cpu::store(ps + i, cpu::load(pa + i) + cpu::load(pb + i));
  });
}

void sum_of_squares(const Tensor& x, const Tensor& sum, Write write) {
  check_tensor(sum, "sum_of_squares", "sum", {1}, DType::float64);
  // Blocks of fixed size, added in order: the sum is the same for every number of threads.
  constexpr std::int64_t block = 4096;
  const std::int64_t count = x.elements(), blocks = (count + block - 1) / block;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* px = x.data<T>();
#pragma omp parallel for if (count > cpu::small)
    for (std::int64_t b = 0; b < blocks; ++b) {
      double squares = 0;
      const std::int64_t end = std::min(count, (b + 1) * block);
#pragma omp simd reduction(+ : squares)
      for (std::int64_t i = b * block; i < end; ++i) {
        const auto value = static_cast<double>(cpu::load(px + i));
        squares += value * value;
      }
      partial[static_cast<std::size_t>(b)] = squares;
    }
  });
  double total = 0;
  for (const double value : partial) total += value;
  double& result = *sum.data<double>();
  result = write == Write::accumulate ? result + total : total;
}

void sum_of_squares_of_pieces(const Tensor& x, const Pieces& pieces, const Tensor& sum) {
  check_tensor(sum, "sum_of_squares", "sum", {1}, DType::float64);
  const std::int64_t* table = pieces.table.data<std::int64_t>();
  const double* settings = pieces.settings.data<double>();
  std::vector<double> of_piece(static_cast<std::size_t>(pieces.count()));
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* values = x.data<T>();
#pragma omp parallel for
    for (std::int64_t p = 0; p < pieces.count(); ++p) {
      if (settings[p * 2] == 0) continue;
      const T* px = values + table[p * 3];
      double squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t i = 0; i < table[p * 3 + 2]; ++i)
        squares += static_cast<double>(px[i]) * static_cast<double>(px[i]);
      of_piece[static_cast<std::size_t>(p)] = settings[p * 2] * squares;
    }
  });
  double total = 0;
  for (const double value : of_piece) total += value;
  *sum.data<double>() = total;
}

void weighted_sum(const Tensor& x, const Tensor& factors, const Tensor& sum) {
  check_tensor(factors, "weighted_sum", "factors", x.shape(), DType::float64);
  check_tensor(sum, "weighted_sum", "sum", {1}, DType::float64);
  const double *px = x.data<double>(), *by = factors.data<double>();
  double total = 0;
  for (std::int64_t i = 0; i < x.elements(); ++i) total += px[i] * by[i];
  *sum.data<double>() = total;
}

void multiply(const Tensor& x, const Tensor& factor, const Tensor& y) {
  check_tensor(factor, "multiply", "factor", {1}, DType::float64);
  check_tensor(y, "multiply", "y", x.shape(), DType::float64);
  const double by = *factor.data<double>();
  const double* px = x.data<double>();
  double* py = y.data<double>();
  for (std::int64_t i = 0; i < x.elements(); ++i) py[i] = px[i] * by;
}

void swiglu(const Tensor& gate, const Tensor& up, const Tensor& y) {
  check_same("swiglu", gate, up);
  check_same("swiglu", gate, y);
  cpu::with_storage_type(gate.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *pg = gate.data<T>(), *pu = up.data<T>();
    T* py = y.data<T>();
    const std::int64_t count = gate.elements();
#pragma omp parallel for simd if (count > cpu::small)
    for (std::int64_t i = 0; i < count; ++i) cpu::store(py + i, silu(cpu::load(pg + i)) * cpu::load(pu + i));
  });
}

void swiglu_backward(const Tensor& gate, const Tensor& up, const Tensor& dy, const Tensor& dgate,
                     const Tensor& dup) {
  check_same("swiglu_backward", gate, dy);
  cpu::with_storage_type(gate.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *pg = gate.data<T>(), *pu = up.data<T>(), *pdy = dy.data<T>();
    T *pdg = dgate.data<T>(), *pdu = dup.data<T>();
    const std::int64_t count = gate.elements();
#pragma omp parallel for simd if (count > cpu::small)
    for (std::int64_t i = 0; i < count; ++i) {
      const auto g = cpu::load(pg + i), d = cpu::load(pdy + i);
      const auto s = sigmoid(g);
      cpu::store(pdu + i, d * g * s);
      // silu'(g) = s (1 + g (1 - s))
      cpu::store(pdg + i, d * cpu::load(pu + i) * s * (1 + g * (1 - s)));
    }
  });
}

void adamw(const AdamWStep& step, const Pieces& pieces, const Tensor& gradient, const Tensor& value,
           const Tensor& moment1, const Tensor& moment2) {
  check_same("adamw", gradient, value);
  check_same("adamw", moment1, moment2);
  const std::int64_t* table = pieces.table.data<std::int64_t>();
  const double* settings = pieces.settings.data<double>();
  with_float_type(value.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* gradients = gradient.data<T>();
    T *values = value.data<T>(), *moments1 = moment1.data<T>(), *moments2 = moment2.data<T>();
    const T beta1 = static_cast<T>(step.beta1), beta2 = static_cast<T>(step.beta2);
    const T keep1 = static_cast<T>(1 - step.beta1), keep2 = static_cast<T>(1 - step.beta2);
    const T scale_by = static_cast<T>(step.gradient_scale), epsilon = static_cast<T>(step.epsilon);
    const T inverse_correction2 = static_cast<T>(1 / step.correction2);
#pragma omp parallel for
    for (std::int64_t p = 0; p < pieces.count(); ++p) {
      const T* pg = gradients + table[p * 3];
      T *pv = values + table[p * 3], *pm = moments1 + table[p * 3 + 1], *ps = moments2 + table[p * 3 + 1];
      const double learning_rate = step.learning_rate * settings[p * 2];
      const T shrink = static_cast<T>(1 - learning_rate * settings[p * 2 + 1]);
      const T rate = static_cast<T>(learning_rate / step.correction1);
#pragma omp simd
      for (std::int64_t i = 0; i < table[p * 3 + 2]; ++i) {
        const T g = pg[i] * scale_by;
        const T m = beta1 * pm[i] + keep1 * g;
        const T s = beta2 * ps[i] + keep2 * g * g;
        pm[i] = m;
        ps[i] = s;
        pv[i] = shrink * pv[i] - rate * m / (std::sqrt(s * inverse_correction2) + epsilon);
      }
    }
  });
}

}  // namespace

void cpu::put_elementwise(Kernels& kernels) {
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

}  // namespace conclave
