// RMSNorm (Zhang and Sennrich, arXiv 1910.07467): y_i = w_i x_i r with r = 1 / sqrt(mean(x^2) + epsilon).
// Backward, with g_i = w_i dy_i: dx_i = r (g_i - x_i r^2 mean(g x)), dw_i = sum over rows of dy_i x_i r.
#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/storage.h"

namespace conclave {

namespace {

void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, const Tensor& y,
              const Tensor& inverse_rms) {
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  check_tensor(weight, "rms_norm", "weight", {width}, x.dtype());
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    const T *px = x.data<T>(), *w = weight.data<T>();
    T* py = y.data<T>();
    S* inverse = inverse_rms.data<S>();
#pragma omp parallel for if (rows * width > cpu::small)
    for (std::int64_t row = 0; row < rows; ++row) {
      const T* in = px + row * width;
      T* out = py + row * width;
      S squares = 0;
#pragma omp simd reduction(+ : squares)
      for (std::int64_t i = 0; i < width; ++i) squares += cpu::load(in + i) * cpu::load(in + i);
      const S r = S(1) / std::sqrt(squares / static_cast<S>(width) + static_cast<S>(epsilon));
      inverse[row] = r;
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) cpu::store(out + i, cpu::load(w + i) * cpu::load(in + i) * r);
    }
  });
}

void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, const Tensor& dy,
                       const Tensor& dx, const Tensor& dweight, Write write_dweight) {
  const std::int64_t rows = x.dim(0), width = x.dim(1);
  // dweight is summed over chunks of fixed size, then over chunks in order: independent of the number of
  // threads.
  constexpr std::int64_t chunk = 128;
  const std::int64_t chunks = (rows + chunk - 1) / chunk;
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    const T *px = x.data<T>(), *w = weight.data<T>(), *pdy = dy.data<T>();
    const S* inverse = inverse_rms.data<S>();
    T* pdx = dx.data<T>();
    std::vector<S> partial(static_cast<std::size_t>(dweight.defined() ? chunks * width : 0));
#pragma omp parallel for
    for (std::int64_t c = 0; c < chunks; ++c) {
      S* sums = dweight.defined() ? partial.data() + c * width : nullptr;
      for (std::int64_t row = c * chunk; row < std::min(rows, (c + 1) * chunk); ++row) {
        const T *in = px + row * width, *d = pdy + row * width;
        T* out = pdx + row * width;
        const S r = inverse[row];
        S dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t i = 0; i < width; ++i)
          dot += cpu::load(w + i) * cpu::load(d + i) * cpu::load(in + i);
        const S pull = dot * r * r / static_cast<S>(width);
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i)
          cpu::store(out + i, r * (cpu::load(w + i) * cpu::load(d + i) - cpu::load(in + i) * pull));
        if (sums != nullptr) {
#pragma omp simd
          for (std::int64_t i = 0; i < width; ++i) sums[i] += cpu::load(d + i) * cpu::load(in + i) * r;
        }
      }
    }
    if (!dweight.defined()) return;
    cpu::with_result_type<T>("rms_norm_backward", dweight.dtype(), [&](auto result) {
      auto* dw = dweight.data<decltype(result)>();
      cpu::SummedRow<decltype(result)> total(width);
      S* sums = total.sums_of(dw);
      for (std::int64_t i = 0; i < width; ++i)
        sums[i] = write_dweight == Write::overwrite ? S(0) : cpu::load(dw + i);
      for (std::int64_t c = 0; c < chunks; ++c)
        for (std::int64_t i = 0; i < width; ++i) sums[i] += partial[static_cast<std::size_t>(c * width + i)];
      total.write(dw);
    });
  });
}

}  // namespace

void cpu::put_norm(Kernels& kernels) {
  kernels.rms_norm = rms_norm;
  kernels.rms_norm_backward = rms_norm_backward;
}

}  // namespace conclave
