// Grouped-query attention over a range of keys for each query.
// A block of queries looks at a contiguous range of keys, from the first key that one of them sees to the
// last, so the scores of one block are [block, keys]: memory is linear in the sequence, and no running
// softmax is needed. Backward recomputes the probabilities from log_sum_exp (Dao et al., FlashAttention,
// arXiv 2205.14135, equations of appendix B): P = exp(scale QK^T - L), dV = P^T dO, dP = dO V^T, dS = P (dP -
// rowsum(dO O)), dQ = scale dS K, dK = scale dS^T Q.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

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
struct AttentionSizes : AttentionShape {
  std::int64_t query_stride() const { return heads * head_width; }
  std::int64_t out_stride() const { return heads * value_width; }
  std::int64_t key_stride() const { return kv_heads * head_width; }
  std::int64_t value_stride() const { return kv_heads * value_width; }
  std::int64_t query_offset(std::int64_t s, std::int64_t h) const {
    return s * queries * query_stride() + h * head_width;
  }
  std::int64_t out_offset(std::int64_t s, std::int64_t h) const {
    return s * queries * out_stride() + h * value_width;
  }
  std::int64_t key_offset(std::int64_t s, std::int64_t kv) const {
    return s * keys * key_stride() + kv * head_width;
  }
  std::int64_t value_offset(std::int64_t s, std::int64_t kv) const {
    return s * keys * value_stride() + kv * value_width;
  }
};

/// Queries begin .. end-1 of one sequence and the keys first_key .. end_key-1 among which are all that any of
/// them sees.
struct QueryBlock {
  std::int64_t begin, end, first_key, end_key;
  std::int64_t rows() const { return end - begin; }
  std::int64_t keys() const { return end_key - first_key; }
};

/// The ranges of one sequence.
struct Seen {
  const std::int32_t *first, *last;
};

QueryBlock block_at(std::int64_t begin, const AttentionSizes& z, const Seen& seen) {
  QueryBlock block{begin, std::min(begin + query_block, z.queries), z.keys, 0};
  for (std::int64_t t = block.begin; t < block.end; ++t) {
    if (seen.last[t] < seen.first[t]) continue;
    block.first_key = std::min<std::int64_t>(block.first_key, seen.first[t]);
    block.end_key = std::max<std::int64_t>(block.end_key, seen.last[t] + std::int64_t{1});
  }
  if (block.end_key == 0) block.first_key = 0;  // nobody sees anything
  check(block.first_key >= 0 && block.end_key <= z.keys, "attention: queries ", block.begin, " to ",
        block.end - 1, " came with the keys ", block.first_key, " to ", block.end_key - 1, ", but there are ",
        z.keys, " keys");
  return block;
}

/// Which of a block's keys a query sees: from .. to-1, counted from the block's first.
struct KeySpan {
  std::int64_t from, to;
};

KeySpan span_of(const QueryBlock& block, const Seen& seen, std::int64_t row) {
  const std::int64_t first = seen.first[block.begin + row], last = seen.last[block.begin + row];
  if (last < first) return {0, 0};
  return {first - block.first_key, last + 1 - block.first_key};
}

template <class S>
void clear_outside(S* numbers, const KeySpan& span, std::int64_t keys) {
  std::fill(numbers, numbers + span.from, S(0));
  std::fill(numbers + span.to, numbers + keys, S(0));
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
  explicit Room(const Tensor& of_threads)
      : room_(of_threads.slice(omp_get_thread_num(), omp_get_thread_num() + 1)) {}

  template <class S>
  S* take(std::int64_t numbers) {
    S* taken = room_.data<S>() + taken_;
    taken_ += numbers;
    return taken;
  }

 private:
  Tensor room_;
  std::int64_t taken_ = 0;
};

/// Tensors of one call; T as they are stored.
template <class T>
struct AttentionTensors {
  const T *query, *key, *value;
  const std::int32_t *first, *last;
  Sum<T> scale;
  Seen seen(const AttentionSizes& z, std::int64_t s) const {
    return {first + s * z.queries, last + s * z.queries};
  }
};

template <class T>
AttentionTensors<T> tensors_of(const Tensor& query, const Tensor& key, const Tensor& value,
                               const KeyRanges& ranges, double scale) {
  return {query.data<T>(),
          key.data<T>(),
          value.data<T>(),
          ranges.first.data<std::int32_t>(),
          ranges.last.data<std::int32_t>(),
          static_cast<Sum<T>>(scale)};
}

template <class T>
void attend(const AttentionSizes& z, std::int64_t s, std::int64_t h, const AttentionTensors<T>& in, T* out,
            Sum<T>* log_sum_exp, Room room) {
  using S = Sum<T>;
  const std::int64_t width = z.head_width, value_width = z.value_width, kv = h / z.group();
  S *q = room.take<S>(query_block * width), *o = room.take<S>(query_block * value_width),
    *k = room.take<S>(z.keys * width), *v = room.take<S>(z.keys * value_width),
    *scores = room.take<S>(query_block * z.keys);
  take_head(in.key + z.key_offset(s, kv), z.key_stride(), z.keys, width, k);
  take_head(in.value + z.value_offset(s, kv), z.value_stride(), z.keys, value_width, v);
  const Seen seen = in.seen(z, s);
  S* lse = log_sum_exp + (s * z.heads + h) * z.queries;
  for (std::int64_t begin = 0; begin < z.queries; begin += query_block) {
    const QueryBlock block = block_at(begin, z, seen);
    const std::int64_t keys = block.keys(), out_at = z.out_offset(s, h) + begin * z.out_stride();
    if (keys == 0) {
      std::fill_n(o, block.rows() * value_width, S(0));
      put_head(o, block.rows(), value_width, out + out_at, z.out_stride());
      std::fill_n(lse + begin, block.rows(), -std::numeric_limits<S>::infinity());
      continue;
    }
    take_head(in.query + z.query_offset(s, h) + begin * z.query_stride(), z.query_stride(), block.rows(),
              width, q);
    multiply(block.rows(), keys, width, in.scale, Matrix<S>{q, width},
             Matrix<S>{k + block.first_key * width, width, Transpose::yes}, S(0), scores, keys);
    for (std::int64_t row = 0; row < block.rows(); ++row) {
      S* p = scores + row * keys;
      const auto [from, to] = span_of(block, seen, row);
      if (from == to) {
        std::fill_n(p, keys, S(0));
        lse[begin + row] = -std::numeric_limits<S>::infinity();
        continue;
      }
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
      clear_outside(p, {from, to}, keys);
      lse[begin + row] = largest + std::log(sum);
    }
    multiply(block.rows(), value_width, keys, S(1), Matrix<S>{scores, keys},
             Matrix<S>{v + block.first_key * value_width, value_width}, S(0), o, value_width);
    put_head(o, block.rows(), value_width, out + out_at, z.out_stride());
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
  const std::int64_t width = z.head_width, value_width = z.value_width, qs = z.query_stride(),
                     os = z.out_stride(), k_at = z.key_offset(s, kv), v_at = z.value_offset(s, kv);
  S *q = room.take<S>(query_block * width), *dout = room.take<S>(query_block * value_width),
    *dq = room.take<S>(query_block * width), *k = room.take<S>(z.keys * width),
    *v = room.take<S>(z.keys * value_width), *dk = room.take<S>(z.keys * width),
    *dv = room.take<S>(z.keys * value_width), *scores = room.take<S>(query_block * z.keys),
    *dscores = room.take<S>(query_block * z.keys);
  take_head(in.key + k_at, z.key_stride(), z.keys, width, k);
  take_head(in.value + v_at, z.value_stride(), z.keys, value_width, v);
  std::fill_n(dk, z.keys * width, S(0));
  std::fill_n(dv, z.keys * value_width, S(0));
  const Seen seen = in.seen(z, s);
  for (std::int64_t h = kv * z.group(); h < (kv + 1) * z.group(); ++h) {
    const S* lse = g.log_sum_exp + (s * z.heads + h) * z.queries;
    for (std::int64_t begin = 0; begin < z.queries; begin += query_block) {
      const QueryBlock block = block_at(begin, z, seen);
      const std::int64_t keys = block.keys(), rows = block.rows(), at = z.query_offset(s, h) + begin * qs,
                         out_at = z.out_offset(s, h) + begin * os;
      if (keys == 0) {
        std::fill_n(dq, rows * width, S(0));
        put_head(dq, rows, width, g.dquery + at, qs);
        continue;
      }
      const std::int64_t first = block.first_key * width, first_value = block.first_key * value_width;
      take_head(in.query + at, qs, rows, width, q);
      take_head(g.dout + out_at, os, rows, value_width, dout);
      multiply(rows, keys, width, in.scale, Matrix<S>{q, width}, Matrix<S>{k + first, width, Transpose::yes},
               S(0), scores, keys);
      multiply(rows, keys, value_width, S(1), Matrix<S>{dout, value_width},
               Matrix<S>{v + first_value, value_width, Transpose::yes}, S(0), dscores, keys);
      for (std::int64_t row = 0; row < rows; ++row) {
        S *p = scores + row * keys, *dp = dscores + row * keys;
        const auto [from, to] = span_of(block, seen, row);
        const T* o = g.out + out_at + row * os;
        S delta = 0;
#pragma omp simd reduction(+ : delta)
        for (std::int64_t i = 0; i < value_width; ++i)
          delta += cpu::load(o + i) * dout[row * value_width + i];
        const S shift = lse[begin + row];
#pragma omp simd
        for (std::int64_t j = from; j < to; ++j) {
          p[j] = exponential(p[j] - shift);
          dp[j] = p[j] * (dp[j] - delta);
        }
        clear_outside(p, {from, to}, keys);
        clear_outside(dp, {from, to}, keys);
      }
      multiply(rows, width, keys, in.scale, Matrix<S>{dscores, keys}, Matrix<S>{k + first, width}, S(0), dq,
               width);
      put_head(dq, rows, width, g.dquery + at, qs);
      multiply(keys, width, rows, in.scale, Matrix<S>{dscores, keys, Transpose::yes}, Matrix<S>{q, width},
               S(1), dk + first, width);
      multiply(keys, value_width, rows, S(1), Matrix<S>{scores, keys, Transpose::yes},
               Matrix<S>{dout, value_width}, S(1), dv + first_value, value_width);
    }
  }
  put_head(dk, z.keys, width, g.dkey + k_at, z.key_stride());
  put_head(dv, z.keys, value_width, g.dvalue + v_at, z.value_stride());
}

void attention(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
               std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp) {
  const AttentionSizes z{attention_shape(query, key, value, ranges, head_width)};
  check_tensor(out, "attention", "out", z.out(), query.dtype());
  check_tensor(log_sum_exp, "attention", "log_sum_exp", z.log_sum_exp(), sum_type(query.dtype()));
  cpu::with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const AttentionTensors<T> in = tensors_of<T>(query, key, value, ranges, scale);
    T* o = out.data<T>();
    auto* lse = log_sum_exp.data<Sum<T>>();
    const Tensor rooms = cpu::attention_room.take(omp_get_max_threads(), z, query);
    cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < z.sequences; ++s)
      for (std::int64_t h = 0; h < z.heads; ++h)
        error.guard([&] { attend<T>(z, s, h, in, o, lse, Room(rooms)); });
    error.rethrow();
  });
}

void attention_backward(const Tensor& query, const Tensor& key, const Tensor& value, const KeyRanges& ranges,
                        std::int64_t head_width, double scale, const Tensor& out, const Tensor& log_sum_exp,
                        const Tensor& dout, const Tensor& dquery, const Tensor& dkey, const Tensor& dvalue) {
  const AttentionSizes z{attention_shape(query, key, value, ranges, head_width)};
  check_tensor(dout, "attention_backward", "dout", z.out(), query.dtype());
  cpu::with_storage_type(query.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const AttentionTensors<T> in = tensors_of<T>(query, key, value, ranges, scale);
    const AttentionGradients<T> gradients{out.data<T>(),  log_sum_exp.data<Sum<T>>(),
                                          dout.data<T>(), dquery.data<T>(),
                                          dkey.data<T>(), dvalue.data<T>()};
    const Tensor rooms = cpu::attention_backward_room.take(omp_get_max_threads(), z, query);
    cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (std::int64_t s = 0; s < z.sequences; ++s)
      for (std::int64_t kv = 0; kv < z.kv_heads; ++kv)
        error.guard([&] { attend_backward<T>(z, s, kv, in, gradients, Room(rooms)); });
    error.rethrow();
  });
}

}  // namespace

void cpu::put_attention(Kernels& kernels) {
  kernels.attention = attention;
  kernels.attention_backward = attention_backward;
}

}  // namespace conclave
