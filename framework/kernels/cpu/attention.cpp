// Grouped-query attention over a range of keys for each query.
// A block of queries looks at a contiguous range of keys, from the first key that one of them sees to the
// last, so the scores of one block are [block, keys]: memory is linear in the sequence, and no running
// softmax is needed. Backward recomputes the probabilities from log_sum_exp (Dao et al., FlashAttention,
// arXiv 2205.14135, equations of appendix B): P = exp(scale QK^T - L), dV = P^T dO, dP = dO V^T, dS = P (dP -
// rowsum(dO O)), dQ = scale dS K, dK = scale dS^T Q.
#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/kernels/cpu/attention_products.h"
#include "framework/kernels/cpu/cpu_kernels.h"
#include "framework/kernels/cpu/parallel_error.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/scalar_math.h"

namespace conclave {
namespace {

using cpu::HeadRows;
using cpu::Pass;
using cpu::query_block;
using cpu::QueryBlock;
using cpu::Room;
using cpu::Sum;

/// The sizes of one call, and where head h of sequence s begins.
struct AttentionSizes : AttentionShape {
  std::int64_t query_stride() const { return heads * head_width; }
  std::int64_t out_stride() const { return heads * value_width; }
  template <class T>
  HeadRows<T> query_rows(T* query, std::int64_t s, std::int64_t h, std::int64_t row = 0) const {
    return {query + (s * queries + row) * query_stride() + h * head_width, query_stride()};
  }
  template <class T>
  HeadRows<T> out_rows(T* out, std::int64_t s, std::int64_t h, std::int64_t row = 0) const {
    return {out + (s * queries + row) * out_stride() + h * value_width, out_stride()};
  }
  template <class T>
  HeadRows<T> key_rows(T* key, std::int64_t s, std::int64_t kv) const {
    return {key + s * keys * kv_heads * head_width + kv * head_width, kv_heads * head_width};
  }
  template <class T>
  HeadRows<T> value_rows(T* value, std::int64_t s, std::int64_t kv) const {
    return {value + s * keys * kv_heads * value_width + kv * value_width, kv_heads * value_width};
  }
};

/// The ranges of one sequence.
struct Seen {
  const std::int32_t *first, *last;
};

/// The block of queries from `begin` on; its first key is a multiple of key_step.
QueryBlock block_at(std::int64_t begin, const AttentionSizes& z, const Seen& seen, std::int64_t key_step) {
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
  block.first_key -= block.first_key % key_step;
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

template <class T>
void clear_rows(std::int64_t rows, std::int64_t width, HeadRows<T> to) {
  for (std::int64_t row = 0; row < rows; ++row) std::fill_n(to.data + row * to.stride, width, T{});
}

template <class S>
void clear_outside(S* numbers, const KeySpan& span, std::int64_t keys) {
  std::fill(numbers, numbers + span.from, S(0));
  std::fill(numbers + span.to, numbers + keys, S(0));
}

/// Tensors of one call; T as they are stored.
template <class T>
struct AttentionTensors {
  const T *query, *key, *value;
  const std::int32_t *first, *last;
  double scale;
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
          scale};
}

template <class Products, class T>
void attend(const AttentionSizes& z, std::int64_t s, std::int64_t h, const AttentionTensors<T>& in, T* out,
            Sum<T>* log_sum_exp, Room room) {
  using S = Sum<T>;
  const std::int64_t kv = h / z.group();
  Products products(z, in.scale, Pass::forward, room);
  S* scores = room.take<S>(query_block * z.keys);
  products.take_keys(z.keys, z.key_rows(in.key, s, kv), z.value_rows(in.value, s, kv));
  const Seen seen = in.seen(z, s);
  S factors[query_block];  // 1 over the sum of a row's weights
  S* lse = log_sum_exp + (s * z.heads + h) * z.queries;
  for (std::int64_t begin = 0; begin < z.queries; begin += query_block) {
    const QueryBlock block = block_at(begin, z, seen, Products::key_step);
    const std::int64_t keys = block.keys();
    const HeadRows<T> out_rows = z.out_rows(out, s, h, begin);
    if (keys == 0) {
      clear_rows(block.rows(), z.value_width, out_rows);
      std::fill_n(lse + begin, block.rows(), -std::numeric_limits<S>::infinity());
      continue;
    }
    products.take_query(block, z.query_rows(in.query, s, h, begin));
    products.scores(block, scores);
    for (std::int64_t row = 0; row < block.rows(); ++row) {
      S* p = scores + row * keys;
      const KeySpan span = span_of(block, seen, row);
      const std::int64_t from = span.from, to = span.to;
      if (from == to) {
        std::fill_n(p, keys, S(0));
        factors[row] = 0;
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
      factors[row] = S(1) / sum;
      clear_outside(p, span, keys);
      lse[begin + row] = largest + std::log(sum);
    }
    products.out(block, scores, factors, out_rows);
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
template <class Products, class T>
void attend_backward(const AttentionSizes& z, std::int64_t s, std::int64_t kv, const AttentionTensors<T>& in,
                     const AttentionGradients<T>& g, Room room) {
  using S = Sum<T>;
  Products products(z, in.scale, Pass::backward, room);
  S *dk = room.take<S>(z.keys * z.head_width), *dv = room.take<S>(z.keys * z.value_width),
    *scores = room.take<S>(query_block * z.keys), *dscores = room.take<S>(query_block * z.keys);
  const HeadRows<const T> key = z.key_rows(in.key, s, kv), value = z.value_rows(in.value, s, kv);
  products.take_keys(z.keys, key, value);
  products.take_keys_for_backward(z.keys, key, value);
  std::fill_n(dk, z.keys * z.head_width, S(0));
  std::fill_n(dv, z.keys * z.value_width, S(0));
  const Seen seen = in.seen(z, s);
  for (std::int64_t h = kv * z.group(); h < (kv + 1) * z.group(); ++h) {
    const S* lse = g.log_sum_exp + (s * z.heads + h) * z.queries;
    for (std::int64_t begin = 0; begin < z.queries; begin += query_block) {
      const QueryBlock block = block_at(begin, z, seen, Products::key_step);
      const std::int64_t keys = block.keys(), rows = block.rows();
      const HeadRows<T> dquery = z.query_rows(g.dquery, s, h, begin);
      if (keys == 0) {
        clear_rows(rows, z.head_width, dquery);
        continue;
      }
      const HeadRows<const T> out = z.out_rows(g.out, s, h, begin), dout = z.out_rows(g.dout, s, h, begin);
      products.take_query(block, z.query_rows(in.query, s, h, begin));
      products.take_dout(block, dout);
      products.scores(block, scores);
      products.dweights(block, dscores);
      for (std::int64_t row = 0; row < rows; ++row) {
        S *p = scores + row * keys, *dp = dscores + row * keys;
        const KeySpan span = span_of(block, seen, row);
        const std::int64_t from = span.from, to = span.to;
        const T *o = out.data + row * out.stride, *d = dout.data + row * dout.stride;
        S delta = 0;
#pragma omp simd reduction(+ : delta)
        for (std::int64_t i = 0; i < z.value_width; ++i) delta += cpu::load(o + i) * cpu::load(d + i);
        const S shift = lse[begin + row];
#pragma omp simd
        for (std::int64_t j = from; j < to; ++j) {
          p[j] = exponential(p[j] - shift);
          dp[j] = p[j] * (dp[j] - delta);
        }
        clear_outside(p, span, keys);
        clear_outside(dp, span, keys);
      }
      products.dscores(block, dscores, dquery, dk);
      products.dvalue(block, scores, dv);
    }
  }
  put_rows(dk, z.keys, z.head_width, z.key_rows(g.dkey, s, kv));
  put_rows(dv, z.keys, z.value_width, z.value_rows(g.dvalue, s, kv));
}

/// Calls function(std::type_identity<Products>{}) with the products that this machine has for T.
template <class T, class Function>
void with_products(Function&& function) {
  if constexpr (std::is_same_v<T, BFloat16>)
    if (cpu::has_bfloat16_tiles()) return function(std::type_identity<cpu::TileProducts>{});
  function(std::type_identity<cpu::GatheredProducts<T>>{});
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
    const auto attend_all = [&](auto products) {
      using Products = typename decltype(products)::type;
      cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
      for (std::int64_t s = 0; s < z.sequences; ++s)
        for (std::int64_t h = 0; h < z.heads; ++h)
          error.guard([&] { attend<Products, T>(z, s, h, in, o, lse, Room(rooms)); });
      error.rethrow();
    };
    if (z.queries == 1) return attend_all(std::type_identity<cpu::ProductsInPlace<T>>{});
    with_products<T>(attend_all);
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
    with_products<T>([&](auto products) {
      using Products = typename decltype(products)::type;
      cpu::ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
      for (std::int64_t s = 0; s < z.sequences; ++s)
        for (std::int64_t kv = 0; kv < z.kv_heads; ++kv)
          error.guard([&] { attend_backward<Products, T>(z, s, kv, in, gradients, Room(rooms)); });
      error.rethrow();
    });
  });
}

}  // namespace

void cpu::put_attention(Kernels& kernels) {
  kernels.attention = attention;
  kernels.attention_backward = attention_backward;
}

}  // namespace conclave
