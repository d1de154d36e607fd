// The products of attention for one head of keys and values, in three ways under one set of names, so that
// attention.cpp walks over queries once: on gathered copies in the type of sums, for bfloat16 on AMX tiles,
// and where keys and values lie. An object belongs to one thread.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "framework/kernels/cpu/attention_room.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/cpu/tile_product.h"

namespace conclave::cpu {

/// Queries begin .. end-1 of one sequence and the keys first_key .. end_key-1 among which are all that any of
/// them sees.
struct QueryBlock {
  std::int64_t begin, end, first_key, end_key;
  std::int64_t rows() const { return end - begin; }
  std::int64_t keys() const { return end_key - first_key; }
};

enum class Pass { forward, backward };

/// Rows of one head in a tensor: row r begins at data + r * stride.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;
};

/// The memory of one thread (attention_room.h), handed out part after part.
class Room {
 public:
  explicit Room(const Tensor& of_threads)
      : room_(of_threads.slice(omp_get_thread_num(), omp_get_thread_num() + 1)) {}

  /// The next `numbers` numbers of the type of sums.
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

template <class T>
void put_rows(const Sum<T>* from, std::int64_t rows, std::int64_t width, HeadRows<T> to) {
  for (std::int64_t row = 0; row < rows; ++row)
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) store(to.data + row * to.stride + i, from[row * width + i]);
}

/// On copies of a head's rows without the other heads between them, which makes the products a tenth faster.
/// bfloat16 becomes float32 on the way.
template <class T>
class GatheredProducts {
 public:
  using S = Sum<T>;
  /// A block's first key must be a multiple of this.
  static constexpr std::int64_t key_step = 1;

  GatheredProducts(const AttentionShape& z, double scale, Pass pass, Room& room)
      : width_(z.head_width),
        value_width_(z.value_width),
        scale_(static_cast<S>(scale)),
        query_(room.take<S>(query_block * width_)),
        dquery_(pass == Pass::backward ? room.take<S>(query_block * width_) : nullptr),
        out_(room.take<S>(query_block * value_width_)),
        key_(room.take<S>(z.keys * width_)),
        value_(room.take<S>(z.keys * value_width_)) {}

  void take_keys(std::int64_t keys, HeadRows<const T> key, HeadRows<const T> value) {
    gather(keys, width_, key, key_);
    gather(keys, value_width_, value, value_);
  }
  /// The forms that backward alone needs.
  void take_keys_for_backward(std::int64_t, HeadRows<const T>, HeadRows<const T>) {}
  void take_query(const QueryBlock& block, HeadRows<const T> query) {
    gather(block.rows(), width_, query, query_);
  }
  void take_dout(const QueryBlock& block, HeadRows<const T> dout) {
    gather(block.rows(), value_width_, dout, out_);
  }

  /// scores [rows, keys] = scale query key^T
  void scores(const QueryBlock& block, S* scores) const {
    multiply(block.rows(), block.keys(), width_, scale_, Matrix<S>{query_, width_},
             Matrix<S>{key_ + block.first_key * width_, width_, Transpose::yes}, S(0), scores, block.keys());
  }
  /// out [rows, value_width] = factors [rows] weights [rows, keys] value; the weights are changed
  void out(const QueryBlock& block, S* weights, const S* factors, HeadRows<T> out) const {
    const std::int64_t rows = block.rows(), keys = block.keys();
    for (std::int64_t row = 0; row < rows; ++row)
#pragma omp simd
      for (std::int64_t j = 0; j < keys; ++j) weights[row * keys + j] *= factors[row];
    multiply(rows, value_width_, keys, S(1), Matrix<S>{weights, keys},
             Matrix<S>{value_ + block.first_key * value_width_, value_width_}, S(0), out_, value_width_);
    put_rows(out_, rows, value_width_, out);
  }
  /// dweights [rows, keys] = dout value^T
  void dweights(const QueryBlock& block, S* dweights) const {
    multiply(block.rows(), block.keys(), value_width_, S(1), Matrix<S>{out_, value_width_},
             Matrix<S>{value_ + block.first_key * value_width_, value_width_, Transpose::yes}, S(0), dweights,
             block.keys());
  }
  /// dquery [rows, width] = scale dscores [rows, keys] key; dkey [keys, width] += scale dscores^T query
  void dscores(const QueryBlock& block, const S* dscores, HeadRows<T> dquery, S* dkey) const {
    const std::int64_t rows = block.rows(), keys = block.keys();
    multiply(rows, width_, keys, scale_, Matrix<S>{dscores, keys},
             Matrix<S>{key_ + block.first_key * width_, width_}, S(0), dquery_, width_);
    put_rows(dquery_, rows, width_, dquery);
    multiply(keys, width_, rows, scale_, Matrix<S>{dscores, keys, Transpose::yes}, Matrix<S>{query_, width_},
             S(1), dkey + block.first_key * width_, width_);
  }
  /// dvalue [keys, value_width] += weights^T dout
  void dvalue(const QueryBlock& block, const S* weights, S* dvalue) const {
    multiply(block.keys(), value_width_, block.rows(), S(1), Matrix<S>{weights, block.keys(), Transpose::yes},
             Matrix<S>{out_, value_width_}, S(1), dvalue + block.first_key * value_width_, value_width_);
  }

 private:
  static void gather(std::int64_t rows, std::int64_t width, HeadRows<const T> from, S* to) {
    for (std::int64_t row = 0; row < rows; ++row)
#pragma omp simd
      for (std::int64_t i = 0; i < width; ++i) to[row * width + i] = load(from.data + row * from.stride + i);
  }

  std::int64_t width_, value_width_;
  S scale_;
  S *query_, *dquery_, *out_, *key_, *value_;
};

/// For one query, forward: keys and values are read where they lie, as a copy of them would take longer than
/// the products. All sums run in one order.
template <class T>
class ProductsInPlace {
 public:
  using S = Sum<T>;
  static constexpr std::int64_t key_step = 1;

  ProductsInPlace(const AttentionShape& z, double scale, Pass, Room& room)
      : width_(z.head_width),
        value_width_(z.value_width),
        scale_(static_cast<S>(scale)),
        query_(room.take<S>(query_block * width_)),
        out_(room.take<S>(query_block * value_width_)) {}

  void take_keys(std::int64_t, HeadRows<const T> key, HeadRows<const T> value) {
    key_ = key;
    value_ = value;
  }
  void take_query(const QueryBlock&, HeadRows<const T> query) {
    for (std::int64_t i = 0; i < width_; ++i) query_[i] = load(query.data + i);
  }
  void scores(const QueryBlock& block, S* scores) const {
    for (std::int64_t j = 0; j < block.keys(); ++j) {
      const T* key = row(key_, block, j, width_);
      S sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = 0; i < width_; ++i) sum += query_[i] * load(key + i);
      scores[j] = scale_ * sum;
    }
  }
  void out(const QueryBlock& block, const S* weights, const S* factors, HeadRows<T> out) {
    std::fill_n(out_, value_width_, S(0));
    for (std::int64_t j = 0; j < block.keys(); ++j) {
      const T* value = row(value_, block, j, value_width_);
      const S weight = weights[j];
#pragma omp simd
      for (std::int64_t i = 0; i < value_width_; ++i) out_[i] += weight * load(value + i);
    }
    for (std::int64_t i = 0; i < value_width_; ++i) store(out.data + i, out_[i] * factors[0]);
  }

 private:
  /// Row j of a block. Rows lie apart, and the processor does not foresee their places: a row further on is
  /// asked for at once.
  static const T* row(HeadRows<const T> rows, const QueryBlock& block, std::int64_t j, std::int64_t width) {
    constexpr std::int64_t ahead = 8, line = 64 / static_cast<std::int64_t>(sizeof(T));
    const T* data = rows.data + (block.first_key + j) * rows.stride;
    if (j + ahead < block.keys())
      for (std::int64_t i = 0; i < width; i += line) __builtin_prefetch(data + ahead * rows.stride + i);
    return data;
  }

  std::int64_t width_, value_width_;
  S scale_;
  S *query_, *out_;
  HeadRows<const T> key_{}, value_{};
};

/// On AMX tiles: keys and values are packed once for all queries that look at them. Weights, and scores'
/// gradients times `scale`, are rounded to bfloat16 for their products.
class TileProducts {
 public:
  using T = BFloat16;
  static constexpr std::int64_t key_step = tile_columns;

  TileProducts(const AttentionShape& z, double scale, Pass, Room& room)
      : width_(z.head_width),
        value_width_(z.value_width),
        scale_(static_cast<float>(scale)),
        out_(room.take<float>(query_block * value_width_)),
        rounded_(reinterpret_cast<T*>(room.take<float>((query_block * z.keys + 1) / 2))) {}

  void take_keys(std::int64_t keys, HeadRows<const T> key, HeadRows<const T> value) {
    packs().key_transposed.pack(width_, keys, matrix(key, Transpose::yes));
    packs().value.pack(keys, value_width_, matrix(value));
  }
  void take_keys_for_backward(std::int64_t keys, HeadRows<const T> key, HeadRows<const T> value) {
    packs().key.pack(keys, width_, matrix(key));
    packs().value_transposed.pack(value_width_, keys, matrix(value, Transpose::yes));
  }
  void take_query(const QueryBlock&, HeadRows<const T> query) { query_ = query; }
  void take_dout(const QueryBlock&, HeadRows<const T> dout) { dout_ = dout; }

  void scores(const QueryBlock& block, float* scores) const {
    multiply_on_tiles(block.rows(), matrix(query_), packs().key_transposed, 0, width_, block.first_key,
                      block.keys(), 0.0F, scores, block.keys());
    const std::int64_t count = block.rows() * block.keys();
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) scores[i] *= scale_;
  }
  /// The factors come after the product: the largest weight of a row is 1 and loses nothing.
  void out(const QueryBlock& block, const float* weights, const float* factors, HeadRows<T> out) {
    round(block, weights, 1.0F);
    multiply_on_tiles(block.rows(), {rounded_, block.keys()}, packs().value, block.first_key, block.keys(), 0,
                      value_width_, 0.0F, out_, value_width_);
    for (std::int64_t row = 0; row < block.rows(); ++row)
#pragma omp simd
      for (std::int64_t i = 0; i < value_width_; ++i) out_[row * value_width_ + i] *= factors[row];
    put_rows(out_, block.rows(), value_width_, out);
  }
  void dweights(const QueryBlock& block, float* dweights) const {
    multiply_on_tiles(block.rows(), matrix(dout_), packs().value_transposed, 0, value_width_, block.first_key,
                      block.keys(), 0.0F, dweights, block.keys());
  }
  void dscores(const QueryBlock& block, const float* dscores, HeadRows<T> dquery, float* dkey) {
    round(block, dscores, scale_);
    multiply_on_tiles(block.rows(), {rounded_, block.keys()}, packs().key, block.first_key, block.keys(), 0,
                      width_, 0.0F, dquery.data, dquery.stride);
    multiply_on_tiles(block.keys(), width_, block.rows(), {rounded_, block.keys(), Transpose::yes},
                      matrix(query_), 1.0F, dkey + block.first_key * width_, width_);
  }
  void dvalue(const QueryBlock& block, const float* weights, float* dvalue) {
    round(block, weights, 1.0F);
    multiply_on_tiles(block.keys(), value_width_, block.rows(), {rounded_, block.keys(), Transpose::yes},
                      matrix(dout_), 1.0F, dvalue + block.first_key * value_width_, value_width_);
  }

 private:
  /// [width, keys], [keys, width] of keys, and likewise of values.
  struct Packs {
    TileMatrix key_transposed, key, value, value_transposed;
  };
  static Packs& packs() {
    thread_local Packs of_thread;
    return of_thread;
  }
  static Matrix<T> matrix(HeadRows<const T> rows, Transpose transpose = Transpose::no) {
    return {rows.data, rows.stride, transpose};
  }
  void round(const QueryBlock& block, const float* numbers, float factor) {
    const std::int64_t count = block.rows() * block.keys();
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) store(rounded_ + i, factor * numbers[i]);
  }

  std::int64_t width_, value_width_;
  float scale_;
  float* out_;  // [rows, value_width] of a block
  T* rounded_;  // [rows, keys] of a block
  HeadRows<const T> query_{}, dout_{};
};

}  // namespace conclave::cpu
