// Causal grouped-query attention inside documents.
// A block of queries sees a contiguous range of keys, from the first document start in the block to its own
// end, so the scores of one block are [block, keys]: memory is linear in the sequence, and no running softmax
// is needed. Backward recomputes the probabilities from log_sum_exp (Dao et al., FlashAttention, arXiv
// 2205.14135, equations of appendix B): P = exp(scale QK^T - L), dV = P^T dO, dP = dO V^T, dS = P (dP -
// rowsum(dO O)), dQ = scale dS K, dK = scale dS^T Q.
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "framework/kernels/cpu/attention_room.h"
#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "framework/kernels/cpu/parallel_error.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {
namespace {

using cpu::Matrix;
using cpu::multiply;
using cpu::query_block;
using cpu::Sum;

/// The sizes of one call, and where head h of sequence s begins.
struct AttentionSizes {
  std::int64_t sequences, length, heads, kv_heads, head_width;
  std::int64_t group() const { return heads / kv_heads; }
  std::int64_t query_stride() const { return heads * head_width; }
  std::int64_t key_stride() const { return kv_heads * head_width; }
  std::int64_t query_offset(std::int64_t s, std::int64_t h) const {
    return s * length * query_stride() + h * head_width;
  }
  std::int64_t key_offset(std::int64_t s, std::int64_t kv) const {
    return s * length * key_stride() + kv * head_width;
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

/// Rows of one head, gathered: [rows, width] without the other heads between them, which makes the products a
/// tenth faster; bfloat16 becomes float32 on the way, in which all of attention is computed.
template <class T>
void take_head(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t width, Sum<T>* to) {
  for (std::int64_t row = 0; row < rows; ++row)
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) to[row * width + i] = cpu::load(from + row * stride + i);
}

template <class T>
void put_head(const Sum<T>* from, std::int64_t rows, std::int64_t width, T* to, std::int64_t stride) {
  for (std::int64_t row = 0; row < rows; ++row)
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) cpu::store(to + row * stride + i, from[row * width + i]);
}

/// The memory of one thread (attention_room.h), handed out part after part.
class Room {
 public:
  Room(const Tensor& of_threads, const AttentionSizes& z)
      : room_(of_threads.slice(omp_get_thread_num(), omp_get_thread_num() + 1)), sizes_(z) {}

  template <class S>
  S* block() {
    return take<S>(query_block * sizes_.head_width);
  }
  template <class S>
  S* head() {
    return take<S>(sizes_.length * sizes_.head_width);
  }
  template <class S>
  S* scores() {
    return take<S>(query_block * sizes_.length);
  }

 private:
  template <class S>
  S* take(std::int64_t numbers) {
    S* taken = room_.data<S>() + taken_;
    taken_ += numbers;
    return taken;
  }
  Tensor room_;
  const AttentionSizes& sizes_;
  std::int64_t taken_ = 0;
};

/// Tensors of one call; T as they are stored.
template <class T>
struct AttentionTensors {
  const T *query, *key, *value;
  const std::int32_t* document_start;
  Sum<T> scale;
};

template <class T>
void attend(const AttentionSizes& z, std::int64_t s, std::int64_t h, const AttentionTensors<T>& in, T* out,
            Sum<T>* log_sum_exp, Room room) {
  using S = Sum<T>;
  const std::int64_t width = z.head_width;
  S *q = room.block<S>(), *o = room.block<S>(), *k = room.head<S>(), *v = room.head<S>(),
    *scores = room.scores<S>();
  take_head(in.key + z.key_offset(s, h / z.group()), z.key_stride(), z.length, width, k);
  take_head(in.value + z.key_offset(s, h / z.group()), z.key_stride(), z.length, width, v);
  const std::int32_t* document_start = in.document_start + s * z.length;
  S* lse = log_sum_exp + (s * z.heads + h) * z.length;
  for (std::int64_t begin = 0; begin < z.length; begin += query_block) {
    const QueryBlock block = block_at(begin, z.length, document_start);
    const std::int64_t keys = block.keys(), at = z.query_offset(s, h) + begin * z.query_stride();
    take_head(in.query + at, z.query_stride(), block.rows(), width, q);
    multiply(block.rows(), keys, width, in.scale, Matrix<S>{q, width},
             Matrix<S>{k + block.first_key * width, width, Transpose::yes}, S(0), scores, keys);
    for (std::int64_t row = 0; row < block.rows(); ++row) {
      S* p = scores + row * keys;
      const std::int64_t from = document_start[begin + row] - block.first_key;
      const std::int64_t to = begin + row + 1 - block.first_key;  // causal: up to itself
      S largest = p[from];
#pragma omp simd reduction(max : largest)
      for (std::int64_t j = from; j < to; ++j) largest = p[j] > largest ? p[j] : largest;
      S sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t j = from; j < to; ++j) {
        p[j] = exponential(p[j] - largest);
        sum += p[j];
      }
      const S inverse = S(1) / sum;
#pragma omp simd
      for (std::int64_t j = from; j < to; ++j) p[j] *= inverse;
      std::fill(p, p + from, S(0));
      std::fill(p + to, p + keys, S(0));
      lse[begin + row] = largest + std::log(sum);
    }
    multiply(block.rows(), width, keys, S(1), Matrix<S>{scores, keys},
             Matrix<S>{v + block.first_key * width, width}, S(0), o, width);
    put_head(o, block.rows(), width, out + at, z.query_stride());
  }
}

template <class T>
struct AttentionGradients {
  const T* out;
  const Sum<T>* log_sum_exp;
  const T* dout;
  T *dquery, *dkey, *dvalue;
};

/// The gradients of a key-value head and of all query heads that look at it: one thread sums them up.
template <class T>
void attend_backward(const AttentionSizes& z, std::int64_t s, std::int64_t kv, const AttentionTensors<T>& in,
                     const AttentionGradients<T>& g, Room room) {
  using S = Sum<T>;
  const std::int64_t width = z.head_width, qs = z.query_stride(), k_at = z.key_offset(s, kv);
  S *q = room.block<S>(), *dout = room.block<S>(), *dq = room.block<S>(), *k = room.head<S>(),
    *v = room.head<S>(), *dk = room.head<S>(), *dv = room.head<S>(), *scores = room.scores<S>(),
    *dscores = room.scores<S>();
  take_head(in.key + k_at, z.key_stride(), z.length, width, k);
  take_head(in.value + k_at, z.key_stride(), z.length, width, v);
  std::fill_n(dk, z.length * width, S(0));
  std::fill_n(dv, z.length * width, S(0));
  const std::int32_t* document_start = in.document_start + s * z.length;
  for (std::int64_t h = kv * z.group(); h < (kv + 1) * z.group(); ++h) {
    const S* lse = g.log_sum_exp + (s * z.heads + h) * z.length;
    for (std::int64_t begin = 0; begin < z.length; begin += query_block) {
      const QueryBlock block = block_at(begin, z.length, document_start);
      const std::int64_t keys = block.keys(), rows = block.rows(), at = z.query_offset(s, h) + begin * qs;
      const std::int64_t first = block.first_key * width;
      take_head(in.query + at, qs, rows, width, q);
      take_head(g.dout + at, qs, rows, width, dout);
      multiply(rows, keys, width, in.scale, Matrix<S>{q, width}, Matrix<S>{k + first, width, Transpose::yes},
               S(0), scores, keys);
      multiply(rows, keys, width, S(1), Matrix<S>{dout, width}, Matrix<S>{v + first, width, Transpose::yes},
               S(0), dscores, keys);
      for (std::int64_t row = 0; row < rows; ++row) {
        S *p = scores + row * keys, *dp = dscores + row * keys;
        const std::int64_t from = document_start[begin + row] - block.first_key;
        const std::int64_t to = begin + row + 1 - block.first_key;
        const T* o = g.out + at + row * qs;
        S delta = 0;
#pragma omp simd reduction(+ : delta)
        for (std::int64_t i = 0; i < width; ++i) delta += cpu::load(o + i) * dout[row * width + i];
        const S shift = lse[begin + row];
#pragma omp simd
        for (std::int64_t j = from; j < to; ++j) {
          p[j] = exponential(p[j] - shift);
          dp[j] = p[j] * (dp[j] - delta);
        }
        std::fill(p, p + from, S(0));
        std::fill(p + to, p + keys, S(0));
        std::fill(dp, dp + from, S(0));
        std::fill(dp + to, dp + keys, S(0));
      }
      multiply(rows, width, keys, in.scale, Matrix<S>{dscores, keys}, Matrix<S>{k + first, width}, S(0), dq,
               width);
      put_head(dq, rows, width, g.dquery + at, qs);
      multiply(keys, width, rows, in.scale, Matrix<S>{dscores, keys, Transpose::yes}, Matrix<S>{q, width},
               S(1), dk + first, width);
      multiply(keys, width, rows, S(1), Matrix<S>{scores, keys, Transpose::yes}, Matrix<S>{dout, width}, S(1),
               dv + first, width);
    }
  }
  put_head(dk, z.length, width, g.dkey + k_at, z.key_stride());
  put_head(dv, z.length, width, g.dvalue + k_at, z.key_stride());
}

void attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& document_start,
               std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp) {
  const AttentionSizes z = sizes_of(query, key, document_start, head_width);
  check_tensor(out, "attention", "out", query.shape(), query.dtype());
  check_tensor(log_sum_exp, "attention", "log_sum_exp", {z.sequences, z.heads, z.length},
               sum_type(query.dtype()));
  cpu::with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const AttentionTensors<T> in{query.data<T>(), key.data<T>(), value.data<T>(),
                                 document_start.data<std::int32_t>(), static_cast<Sum<T>>(scale)};
    T* o = out.data<T>();
    auto* lse = log_sum_exp.data<Sum<T>>();
    const Tensor rooms = cpu::attention_room.take(omp_get_max_threads(), query, head_width);
    cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < z.sequences; ++s)
      for (std::int64_t h = 0; h < z.heads; ++h)
        error.guard([&] { attend<T>(z, s, h, in, o, lse, Room(rooms, z)); });
    error.rethrow();
  });
}

void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                        const Tensor& document_start, std::int64_t head_width, double scale,
                        const Tensor& out, const Tensor& log_sum_exp, const Tensor& dout,
                        const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) {
  const AttentionSizes z = sizes_of(query, key, document_start, head_width);
  check_tensor(dout, "attention_backward", "dout", query.shape(), query.dtype());
  cpu::with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const AttentionTensors<T> in{query.data<T>(), key.data<T>(), value.data<T>(),
                                 document_start.data<std::int32_t>(), static_cast<Sum<T>>(scale)};
    const AttentionGradients<T> gradients{out.data<T>(),  log_sum_exp.data<Sum<T>>(),
                                          dout.data<T>(), dquery.data<T>(),
                                          dkey.data<T>(), dvalue.data<T>()};
    const Tensor rooms = cpu::attention_backward_room.take(omp_get_max_threads(), query, head_width);
    cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < z.sequences; ++s)
      for (std::int64_t kv = 0; kv < z.kv_heads; ++kv)
        error.guard([&] { attend_backward<T>(z, s, kv, in, gradients, Room(rooms, z)); });
    error.rethrow();
  });
}

}  // namespace

void cpu::put_attention(Kernels& kernels) {
  kernels.attention = attention;
  kernels.attention_backward = attention_backward;
}

}  // namespace conclave
