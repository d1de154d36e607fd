#include <omp.h>

#include <algorithm>

#include "framework/kernels/cpu/cpu_kernels.h"

namespace conclave {

void CpuKernels::embedding(const Tensor& tokens, const Tensor& weight, const Tensor& y) const {
  const std::int64_t count = tokens.elements(), vocabulary = weight.dim(0), hidden = weight.dim(1);
  check_tensor(y, "embedding", "y", {count, hidden}, weight.dtype());
  const std::int32_t* id = tokens.data<std::int32_t>();
  for (std::int64_t t = 0; t < count; ++t)
    check(id[t] >= -1 && id[t] < vocabulary, "embedding: token id ", id[t], " at position ", t,
          " is outside the vocabulary of ", vocabulary);
  with_float_type(weight.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* w = weight.data<T>();
    T* out = y.data<T>();
#pragma omp parallel for
    for (std::int64_t t = 0; t < count; ++t) {
      if (id[t] < 0)
        std::fill_n(out + t * hidden, hidden, T(0));
      else
        std::copy_n(w + id[t] * hidden, hidden, out + t * hidden);
    }
  });
}

void CpuKernels::embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight,
                                    Write write) const {
  const std::int64_t count = tokens.elements(), vocabulary = dweight.dim(0), hidden = dweight.dim(1);
  check_tensor(dy, "embedding_backward", "dy", {count, hidden}, dweight.dtype());
  const std::int32_t* id = tokens.data<std::int32_t>();
  with_float_type(dweight.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = dy.data<T>();
    T* dw = dweight.data<T>();
    // Each thread owns a range of the vocabulary and walks all tokens: every row is summed in token order, so
    // the result does not depend on the number of threads.
#pragma omp parallel
    {
      const std::int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
      const std::int64_t begin = vocabulary * thread / threads, end = vocabulary * (thread + 1) / threads;
      if (write == Write::overwrite) std::fill(dw + begin * hidden, dw + end * hidden, T(0));
      for (std::int64_t t = 0; t < count; ++t) {
        if (id[t] < begin || id[t] >= end) continue;
        T* row = dw + id[t] * hidden;
        const T* add = in + t * hidden;
#pragma omp simd
        for (std::int64_t i = 0; i < hidden; ++i) row[i] += add[i];
      }
    }
  });
}

}  // namespace conclave
