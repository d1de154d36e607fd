// Rotary positions and causal grouped-query attention inside documents.
// A block of queries sees a contiguous range of keys, from the first document start in the block to its own
// end, so the scores of one block are [block, keys]: memory is linear in the sequence, and no running softmax
// is needed. Backward recomputes the probabilities from log_sum_exp (Dao et al., FlashAttention, arXiv
// 2205.14135, equations of appendix B): P = exp(scale QK^T - L), dV = P^T dO, dP = dO V^T, dS = P (dP -
// rowsum(dO O)), dQ = scale dS K, dK = scale dS^T Q.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "framework/kernels/cpu/parallel_error.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {

void CpuKernels::rope(const Tensor& x, const Tensor& positions, double theta, std::int64_t rotary_width,
                      Rotation rotation, const Tensor& y) const {
  const std::int64_t tokens = x.dim(0), heads = x.dim(1), width = x.dim(2), half = rotary_width / 2;
  check_tensor(positions, "rope", "positions", {tokens}, DType::int32);
  check(rotary_width % 2 == 0 && rotary_width <= width, "rope: a rotary width of ", rotary_width,
        " came for heads of ", width);
  std::vector<double> frequency(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i)
    frequency[static_cast<std::size_t>(i)] =
        std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_width));
  const std::int32_t* position = positions.data<std::int32_t>();
  std::int32_t last = 0;
  for (std::int64_t t = 0; t < tokens; ++t) last = std::max(last, position[t]);
  const double sign = rotation == Rotation::forward ? 1.0 : -1.0;
  cpu::with_storage_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using S = cpu::Sum<T>;
    // Angles are taken in float64: position * frequency in float32 loses digits at long contexts.
    std::vector<S> cosine(static_cast<std::size_t>((last + 1) * half)), sine(cosine.size());
#pragma omp parallel for
    for (std::int64_t p = 0; p <= last; ++p)
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) * frequency[static_cast<std::size_t>(i)];
        cosine[static_cast<std::size_t>(p * half + i)] = static_cast<S>(std::cos(angle));
        sine[static_cast<std::size_t>(p * half + i)] = static_cast<S>(sign * std::sin(angle));
      }
    const T* px = x.data<T>();
    T* py = y.data<T>();
#pragma omp parallel for
    for (std::int64_t t = 0; t < tokens; ++t) {
      const S *c = cosine.data() + position[t] * half, *s = sine.data() + position[t] * half;
      for (std::int64_t h = 0; h < heads; ++h) {
        const T *first = px + (t * heads + h) * width, *second = first + half;
        T *out_first = py + (t * heads + h) * width, *out_second = out_first + half;
#pragma omp simd
        for (std::int64_t i = 0; i < half; ++i) {
          const S a = cpu::load(first + i), b = cpu::load(second + i);
          cpu::store(out_first + i, a * c[i] - b * s[i]);
          cpu::store(out_second + i, b * c[i] + a * s[i]);
        }
        std::copy(first + rotary_width, first + width, out_first + rotary_width);
      }
    }
  });
}

namespace {

using cpu::Matrix;
using cpu::multiply;

constexpr std::int64_t query_block = 64;

/// The sizes of one call, and where head h of sequence s begins.
struct AttentionSizes {
  std::int64_t sequences, length, heads, kv_heads, head_width;
  std::int64_t query_stride() const { return heads * head_width; }
  std::int64_t key_stride() const { return kv_heads * head_width; }
  std::int64_t query_offset(std::int64_t s, std::int64_t h) const {
    return s * length * query_stride() + h * head_width;
  }
  std::int64_t key_offset(std::int64_t s, std::int64_t h) const {
    return s * length * key_stride() + h / (heads / kv_heads) * head_width;
  }
};

AttentionSizes sizes_of(const Tensor& query, const Tensor& key, const Tensor& document_start,
                        std::int64_t head_width) {
  const AttentionSizes sizes{query.dim(0), query.dim(1), query.dim(2) / head_width, key.dim(2) / head_width,
                             head_width};
  check(sizes.kv_heads > 0 && sizes.heads % sizes.kv_heads == 0 && key.dim(0) == sizes.sequences &&
            key.dim(1) == sizes.length,
        "attention: query ", query.shape(), " and key ", key.shape(), " with head width ", head_width,
        " do not match");
  check_tensor(document_start, "attention", "document_start", {sizes.sequences, sizes.length}, DType::int32);
  return sizes;
}

/// Queries begin .. end-1 of one sequence and the keys first_key .. end-1 that any of them may look at.
struct QueryBlock {
  std::int64_t begin, end, first_key;
  std::int64_t rows() const { return end - begin; }
  std::int64_t keys() const { return end - first_key; }
};

QueryBlock block_at(std::int64_t begin, std::int64_t length, const std::int32_t* document_start) {
  const std::int64_t end = std::min(begin + query_block, length);
  return {begin, end, *std::min_element(document_start + begin, document_start + end)};
}

template <class T>
void attend(const AttentionSizes& z, std::int64_t s, std::int64_t h, const T* query, const T* key,
            const T* value, const std::int32_t* document_start, T scale, T* out, T* log_sum_exp, T* scores) {
  const T* q = query + z.query_offset(s, h);
  const T* k = key + z.key_offset(s, h);
  const T* v = value + z.key_offset(s, h);
  T* o = out + z.query_offset(s, h);
  T* lse = log_sum_exp + (s * z.heads + h) * z.length;
  for (std::int64_t begin = 0; begin < z.length; begin += query_block) {
    const QueryBlock block = block_at(begin, z.length, document_start);
    const std::int64_t keys = block.keys();
    multiply(
        block.rows(), keys, z.head_width, scale, Matrix<T>{q + begin * z.query_stride(), z.query_stride()},
        Matrix<T>{k + block.first_key * z.key_stride(), z.key_stride(), Transpose::yes}, T(0), scores, keys);
    for (std::int64_t row = 0; row < block.rows(); ++row) {
      T* p = scores + row * keys;
      const std::int64_t from = document_start[begin + row] - block.first_key;
      const std::int64_t to = begin + row + 1 - block.first_key;  // causal: up to itself
      T largest = p[from];
#pragma omp simd reduction(max : largest)
      for (std::int64_t j = from; j < to; ++j) largest = p[j] > largest ? p[j] : largest;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = from; j < to; ++j) {
        p[j] = exponential(p[j] - largest);
        sum += p[j];
      }
      const T inverse = T(1) / sum;
#pragma omp simd
      for (std::int64_t j = from; j < to; ++j) p[j] *= inverse;
      std::fill(p, p + from, T(0));
      std::fill(p + to, p + keys, T(0));
      lse[begin + row] = largest + std::log(sum);
    }
    multiply(block.rows(), z.head_width, keys, T(1), Matrix<T>{scores, keys},
             Matrix<T>{v + block.first_key * z.key_stride(), z.key_stride()}, T(0),
             o + begin * z.query_stride(), z.query_stride());
  }
}

template <class T>
struct AttentionGradients {
  const T *out, *log_sum_exp, *dout;
  T *dquery, *dkey, *dvalue;
};

template <class T>
void attend_backward(const AttentionSizes& z, std::int64_t s, std::int64_t h, const T* query, const T* key,
                     const T* value, const std::int32_t* document_start, T scale,
                     const AttentionGradients<T>& g, T* scores, T* dscores) {
  const std::int64_t qs = z.query_stride(), ks = z.key_stride();
  const std::int64_t q_at = z.query_offset(s, h), k_at = z.key_offset(s, h);
  const T* lse = g.log_sum_exp + (s * z.heads + h) * z.length;
  for (std::int64_t begin = 0; begin < z.length; begin += query_block) {
    const QueryBlock block = block_at(begin, z.length, document_start);
    const std::int64_t keys = block.keys(), rows = block.rows();
    const std::int64_t q_block = q_at + begin * qs, k_block = k_at + block.first_key * ks;
    multiply(rows, keys, z.head_width, scale, Matrix<T>{query + q_block, qs},
             Matrix<T>{key + k_block, ks, Transpose::yes}, T(0), scores, keys);
    multiply(rows, keys, z.head_width, T(1), Matrix<T>{g.dout + q_block, qs},
             Matrix<T>{value + k_block, ks, Transpose::yes}, T(0), dscores, keys);
    for (std::int64_t row = 0; row < rows; ++row) {
      T *p = scores + row * keys, *dp = dscores + row * keys;
      const std::int64_t from = document_start[begin + row] - block.first_key;
      const std::int64_t to = begin + row + 1 - block.first_key;
      const T *o = g.out + q_block + row * qs, *d = g.dout + q_block + row * qs;
      T delta = 0;
#pragma omp simd reduction(+ : delta)
      for (std::int64_t i = 0; i < z.head_width; ++i) delta += o[i] * d[i];
      const T shift = lse[begin + row];
#pragma omp simd
      for (std::int64_t j = from; j < to; ++j) {
        p[j] = exponential(p[j] - shift);
        dp[j] = p[j] * (dp[j] - delta);
      }
      std::fill(p, p + from, T(0));
      std::fill(p + to, p + keys, T(0));
      std::fill(dp, dp + from, T(0));
      std::fill(dp + to, dp + keys, T(0));
    }
    multiply(rows, z.head_width, keys, scale, Matrix<T>{dscores, keys}, Matrix<T>{key + k_block, ks}, T(0),
             g.dquery + q_block, qs);
    multiply(keys, z.head_width, rows, scale, Matrix<T>{dscores, keys, Transpose::yes},
             Matrix<T>{query + q_block, qs}, T(1), g.dkey + k_block, ks);
    multiply(keys, z.head_width, rows, T(1), Matrix<T>{scores, keys, Transpose::yes},
             Matrix<T>{g.dout + q_block, qs}, T(1), g.dvalue + k_block, ks);
  }
}

/// Room for each thread's blocks of scores: [threads, blocks * query_block * length].
Tensor scores_of_threads(const AttentionSizes& z, std::int64_t blocks, const Tensor& like) {
  return Tensor::empty({omp_get_max_threads(), blocks * query_block * z.length}, like.dtype(), like.device());
}

/// The values of bfloat16 tensors in float32, in which all of attention is computed.
Tensor in_float32(const CpuKernels& kernels, const Tensor& x) {
  Tensor copy = Tensor::empty(x.shape(), DType::float32, x.device());
  kernels.convert(x, copy);
  return copy;
}

}  // namespace

void CpuKernels::attention(const Tensor& query, const Tensor& key, const Tensor& value,
                           const Tensor& document_start, std::int64_t head_width, double scale,
                           const Tensor& out, const Tensor& log_sum_exp) const {
  const AttentionSizes z = sizes_of(query, key, document_start, head_width);
  check_tensor(out, "attention", "out", query.shape(), query.dtype());
  check_tensor(log_sum_exp, "attention", "log_sum_exp", {z.sequences, z.heads, z.length},
               sum_type(query.dtype()));
  if (query.dtype() == DType::bfloat16) {
    const Tensor result = Tensor::empty(out.shape(), DType::float32, out.device());
    attention(in_float32(*this, query), in_float32(*this, key), in_float32(*this, value), document_start,
              head_width, scale, result, log_sum_exp);
    return convert(result, out);
  }
  const std::int32_t* start = document_start.data<std::int32_t>();
  with_float_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *q = query.data<T>(), *k = key.data<T>(), *v = value.data<T>();
    T *o = out.data<T>(), *lse = log_sum_exp.data<T>();
    const Tensor scores = scores_of_threads(z, 1, query);
    cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < z.sequences; ++s)
      for (std::int64_t h = 0; h < z.heads; ++h)
        error.guard([&] {
          attend<T>(z, s, h, q, k, v, start + s * z.length, static_cast<T>(scale), o, lse,
                    scores.slice(omp_get_thread_num(), omp_get_thread_num() + 1).template data<T>());
        });
    error.rethrow();
  });
}

void CpuKernels::attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                                    const Tensor& document_start, std::int64_t head_width, double scale,
                                    const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                                    const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) const {
  const AttentionSizes z = sizes_of(query, key, document_start, head_width);
  check_tensor(dout, "attention_backward", "dout", query.shape(), query.dtype());
  if (query.dtype() == DType::bfloat16) {
    const auto room = [](const Tensor& like) {
      return Tensor::empty(like.shape(), DType::float32, like.device());
    };
    const Tensor dq = room(dquery), dk = room(dkey), dv = room(dvalue);
    attention_backward(in_float32(*this, query), in_float32(*this, key), in_float32(*this, value),
                       document_start, head_width, scale, in_float32(*this, out), log_sum_exp,
                       in_float32(*this, dout), dq, dk, dv);
    convert(dq, dquery);
    convert(dk, dkey);
    return convert(dv, dvalue);
  }
  const std::int32_t* start = document_start.data<std::int32_t>();
  dkey.fill_zero();
  dvalue.fill_zero();
  with_float_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *q = query.data<T>(), *k = key.data<T>(), *v = value.data<T>();
    const AttentionGradients<T> gradients{out.data<T>(),    log_sum_exp.data<T>(), dout.data<T>(),
                                          dquery.data<T>(), dkey.data<T>(),        dvalue.data<T>()};
    const std::int64_t group = z.heads / z.kv_heads;
    const Tensor scores = scores_of_threads(z, 2, query);
    cpu::ParallelError error;
    // One thread walks all query heads of a key-value head, so that their sums into dkey and dvalue never
    // race.
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < z.sequences; ++s)
      for (std::int64_t kv = 0; kv < z.kv_heads; ++kv)
        error.guard([&] {
          T* own = scores.slice(omp_get_thread_num(), omp_get_thread_num() + 1).template data<T>();
          for (std::int64_t h = kv * group; h < (kv + 1) * group; ++h)
            attend_backward<T>(z, s, h, q, k, v, start + s * z.length, static_cast<T>(scale), gradients, own,
                               own + query_block * z.length);
        });
    error.rethrow();
  });
}

}  // namespace conclave
