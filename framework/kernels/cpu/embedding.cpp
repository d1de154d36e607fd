#include <omp.h>

#include <algorithm>

#include "framework/kernels/backends.h"
#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/storage.h"

namespace conclave {

namespace {

void embedding(const Tensor& tokens, const Tensor& weight, const Tensor& y) {
  const std::int64_t count = tokens.elements(), vocabulary = weight.dim(0), hidden = weight.dim(1);
  check_tensor(y, "embedding", "y", {count, hidden}, weight.dtype());
  const std::int32_t* id = tokens.data<std::int32_t>();
  for (std::int64_t t = 0; t < count; ++t)
    check(id[t] >= -1 && id[t] < vocabulary, "embedding: token id ", id[t], " at position ", t,
          " is outside the vocabulary of ", vocabulary);
  cpu::with_storage_type(weight.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* w = weight.data<T>();
    T* out = y.data<T>();
#pragma omp parallel for if (count * hidden > cpu::small)
    for (std::int64_t t = 0; t < count; ++t) {
      if (id[t] < 0)
        std::fill_n(out + t * hidden, hidden, T{});
      else
        std::copy_n(w + id[t] * hidden, hidden, out + t * hidden);
    }
  });
}

void embedding_backward(const Tensor& tokens, const Tensor& dy, const Tensor& dweight, Write write) {
  const std::int64_t count = tokens.elements(), vocabulary = dweight.dim(0), hidden = dweight.dim(1);
  if (dweight.dtype() == DType::bfloat16) {
    // A token comes again and again: summed in float32 beside it, rounded once.
    const auto convert = cpu_kernels().convert.function();
    const Tensor sums = Tensor::empty(dweight.shape(), DType::float32, dweight.device());
    if (write == Write::accumulate) convert(dweight, sums);
    embedding_backward(tokens, dy, sums, write);
    return convert(sums, dweight);
  }
  check_tensor(dy, "embedding_backward", "dy", {count, hidden}, dy.dtype());
  const std::int32_t* id = tokens.data<std::int32_t>();
  cpu::with_storage_type(dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = dy.data<T>();
    auto* dw = dweight.data<cpu::Sum<T>>();
    // Each thread owns a range of the vocabulary and walks all tokens: every row is summed in token order, so
    // the result does not depend on the number of threads.
#pragma omp parallel
    {
      const std::int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
      const std::int64_t begin = vocabulary * thread / threads, end = vocabulary * (thread + 1) / threads;
      if (write == Write::overwrite) std::fill(dw + begin * hidden, dw + end * hidden, cpu::Sum<T>(0));
      for (std::int64_t t = 0; t < count; ++t) {
        if (id[t] < begin || id[t] >= end) continue;
        auto* row = dw + id[t] * hidden;
        const T* add = in + t * hidden;
#pragma omp simd
        for (std::int64_t i = 0; i < hidden; ++i) row[i] += cpu::load(add + i);
      }
    }
  });
}

}  // namespace

void cpu::put_embedding(Kernels& kernels) {
  kernels.embedding = embedding;
  kernels.embedding_backward = embedding_backward;
}

}  // namespace conclave
