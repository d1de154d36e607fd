#include <algorithm>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/storage.h"

namespace conclave {

namespace {

RowOrder sort_by_expert(const Tensor& experts, std::int64_t expert_count) {
  const std::int64_t slots = experts.elements(), top_k = experts.dim(1);
  const std::int32_t* expert = experts.data<std::int32_t>();
  RowOrder order;
  order.offsets = Tensor::zeros({expert_count + 1}, DType::int64, experts.device());
  std::int64_t* offsets = order.offsets.data<std::int64_t>();
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    check(expert[slot] < expert_count, "sort_by_expert: expert ", expert[slot], " of ", expert_count,
          " was chosen");
    if (expert[slot] >= 0) ++offsets[expert[slot] + 1];
  }
  for (std::int64_t e = 0; e < expert_count; ++e) offsets[e + 1] += offsets[e];
  const std::int64_t rows = offsets[expert_count];
  order.row_of_slot = Tensor::empty(experts.shape(), DType::int32, experts.device());
  order.token_of_row = Tensor::empty({rows}, DType::int32, experts.device());
  order.slot_of_row = Tensor::empty({rows}, DType::int32, experts.device());
  std::vector<std::int64_t> next(offsets, offsets + expert_count);
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    std::int64_t row = -1;
    if (expert[slot] >= 0) {
      row = next[static_cast<std::size_t>(expert[slot])]++;
      order.token_of_row.data<std::int32_t>()[row] = static_cast<std::int32_t>(slot / top_k);
      order.slot_of_row.data<std::int32_t>()[row] = static_cast<std::int32_t>(slot);
    }
    order.row_of_slot.data<std::int32_t>()[slot] = static_cast<std::int32_t>(row);
  }
  return order;
}

void permute_rows(const Tensor& x, const RowOrder& order, const Tensor& rows) {
  const std::int64_t count = rows.dim(0), hidden = x.dim(1);
  const std::int32_t* token = order.token_of_row.data<std::int32_t>();
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.data<T>();
    T* out = rows.data<T>();
#pragma omp parallel for if (count * hidden > cpu::small)
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(in + token[r] * hidden, hidden, out + r * hidden);
  });
}

void permute_rows_backward(const Tensor& drows, const RowOrder& order, const Tensor& dx) {
  const std::int64_t tokens = dx.dim(0), hidden = dx.dim(1), top_k = order.row_of_slot.dim(1);
  const std::int32_t* row = order.row_of_slot.data<std::int32_t>();
  cpu::with_storage_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = drows.data<T>();
    T* out = dx.data<T>();
#pragma omp parallel
    {
      cpu::SummedRow<T> summed(hidden);
#pragma omp for
      for (std::int64_t t = 0; t < tokens; ++t) {
        auto* sum = summed.sums_of(out + t * hidden);
        std::fill_n(sum, hidden, cpu::Sum<T>(0));
        for (std::int64_t k = 0; k < top_k; ++k) {
          if (row[t * top_k + k] < 0) continue;
          const T* add = in + row[t * top_k + k] * hidden;
#pragma omp simd
          for (std::int64_t i = 0; i < hidden; ++i) sum[i] += cpu::load(add + i);
        }
        summed.write(out + t * hidden);
      }
    }
  });
}

void combine_rows(const Tensor& rows, const Tensor& weights, const RowOrder& order, const Tensor& y) {
  const std::int64_t tokens = y.dim(0), hidden = y.dim(1), top_k = weights.dim(1);
  const std::int32_t* row = order.row_of_slot.data<std::int32_t>();
  cpu::with_storage_type(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    const T* in = rows.data<T>();
    const S* w = weights.data<S>();
    T* out = y.data<T>();
#pragma omp parallel if (tokens * hidden > cpu::small)
    {
      cpu::SummedRow<T> summed(hidden);
#pragma omp for
      for (std::int64_t t = 0; t < tokens; ++t) {
        S* sum = summed.sums_of(out + t * hidden);
        std::fill_n(sum, hidden, S(0));
        for (std::int64_t k = 0; k < top_k; ++k) {
          if (row[t * top_k + k] < 0) continue;
          const T* add = in + row[t * top_k + k] * hidden;
          const S weight = w[t * top_k + k];
#pragma omp simd
          for (std::int64_t i = 0; i < hidden; ++i) sum[i] += weight * cpu::load(add + i);
        }
        summed.write(out + t * hidden);
      }
    }
  });
}

void combine_rows_backward(const Tensor& rows, const Tensor& weights, const RowOrder& order, const Tensor& dy,
                           const Tensor& drows, const Tensor& dweights) {
  const std::int64_t tokens = dy.dim(0), hidden = dy.dim(1), top_k = weights.dim(1);
  const std::int32_t* row = order.row_of_slot.data<std::int32_t>();
  cpu::with_storage_type(dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    const T *in = rows.data<T>(), *d = dy.data<T>();
    const S* w = weights.data<S>();
    T* out = drows.data<T>();
    S* dw = dweights.data<S>();
#pragma omp parallel for
    for (std::int64_t t = 0; t < tokens; ++t) {
      const T* gradient = d + t * hidden;
      for (std::int64_t k = 0; k < top_k; ++k) {
        const std::int64_t slot = t * top_k + k;
        dw[slot] = 0;
        if (row[slot] < 0) continue;
        const T* value = in + row[slot] * hidden;
        T* to = out + row[slot] * hidden;
        const S weight = w[slot];
        S dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t i = 0; i < hidden; ++i) {
          cpu::store(to + i, weight * cpu::load(gradient + i));
          dot += cpu::load(value + i) * cpu::load(gradient + i);
        }
        dw[slot] = dot;
      }
    }
  });
}

}  // namespace

void cpu::put_permutation(Kernels& kernels) {
  kernels.sort_by_expert = sort_by_expert;
  kernels.permute_rows = permute_rows;
  kernels.permute_rows_backward = permute_rows_backward;
  kernels.combine_rows = combine_rows;
  kernels.combine_rows_backward = combine_rows_backward;
}

}  // namespace conclave
