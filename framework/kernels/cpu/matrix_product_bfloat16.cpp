// Products of bfloat16 matrices: on AMX tiles where the machine has them (tile_product.h), oneDNN's where it
// has other instructions for them, else in float32 on converted copies. oneDNN's primitives are made once for
// sizes that only a call knows: an expert comes with a new row count in almost every call, and a primitive
// made for one size takes 0.25 ms to make and is no faster.
#include <omp.h>

#include <algorithm>
#include <array>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <string>
#include <vector>

#include "framework/kernels/cpu/code_memory.h"
#include "framework/kernels/cpu/matrix_product.h"
#include "framework/kernels/cpu/parallel_error.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/cpu/tile_product.h"
#include "framework/kernels/onednn/matmul_description.h"

namespace conclave::cpu {
namespace {

using dnnl::memory;

memory::desc description(std::int64_t rows, std::int64_t columns, const memory::data_type type,
                         std::int64_t stride, Transpose transpose) {
  const memory::dims strides = transpose == Transpose::no ? memory::dims{stride, 1} : memory::dims{1, stride};
  return {{rows, columns}, type, strides};
}

/// The work that one primitive can do, whatever the sizes.
struct Kind {
  Transpose transpose_a, transpose_b;
  bool accumulates, rounds;  // rounds: c is bfloat16
  std::size_t index() const {
    return (transpose_a == Transpose::yes ? 8u : 0u) + (transpose_b == Transpose::yes ? 4u : 0u) +
           (accumulates ? 2u : 0u) + (rounds ? 1u : 0u);
  }
};

/// The primitives of one thread: those that threads share would share scratch memory.
class Products {
 public:
  static Products& of_thread() {
    thread_local Products products;
    return products;
  }

  dnnl::matmul::primitive_desc describe(const Kind& kind) const {
    constexpr std::int64_t any = DNNL_RUNTIME_DIM_VAL;
    dnnl::primitive_attr attributes;
    if (kind.accumulates) {
      dnnl::post_ops add;
      add.append_sum(1.0f);
      attributes.set_post_ops(add);
    }
    return onednn::describe_matmul(engine_,
                                   description(any, any, memory::data_type::bf16, any, kind.transpose_a),
                                   description(any, any, memory::data_type::bf16, any, kind.transpose_b),
                                   description(any, any, type_of_c(kind), any, Transpose::no), attributes);
  }

  void multiply(const Kind& kind, std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                const Matrix<BFloat16>& b, void* c, std::int64_t c_stride) {
    std::optional<dnnl::matmul>& product = products_[kind.index()];
    if (!product) product.emplace(describe(kind));
    const auto input = [&](std::int64_t rows, std::int64_t columns, const Matrix<BFloat16>& matrix) {
      // oneDNN takes what it reads as pointers to what it could write.
      return memory(description(rows, columns, memory::data_type::bf16, matrix.stride, matrix.transpose),
                    engine_, const_cast<BFloat16*>(matrix.data));
    };
    product->execute(
        stream_,
        {{DNNL_ARG_SRC, input(m, k, a)},
         {DNNL_ARG_WEIGHTS, input(k, n, b)},
         {DNNL_ARG_DST, memory(description(m, n, type_of_c(kind), c_stride, Transpose::no), engine_, c)}});
    stream_.wait();
  }

 private:
  static memory::data_type type_of_c(const Kind& kind) {
    return kind.rounds ? memory::data_type::bf16 : memory::data_type::f32;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::array<std::optional<dnnl::matmul>, 16> products_;
};

std::vector<float> converted(std::int64_t rows, std::int64_t columns, const BFloat16* from,
                             std::int64_t stride) {
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      values[static_cast<std::size_t>(i * columns + j)] = load(from + i * stride + j);
  return values;
}

Matrix<float> matrix_of(const std::vector<float>& values, std::int64_t columns, Transpose transpose) {
  return {values.data(), columns, transpose};
}

void multiply_converted(std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                        const Matrix<BFloat16>& b, float beta, float* c, std::int64_t c_stride) {
  const auto stored = [](const Matrix<BFloat16>& x, std::int64_t rows, std::int64_t columns) {
    return x.transpose == Transpose::no ? converted(rows, columns, x.data, x.stride)
                                        : converted(columns, rows, x.data, x.stride);
  };
  const std::vector<float> of_a = stored(a, m, k), of_b = stored(b, k, n);
  multiply(m, n, k, 1.0f, matrix_of(of_a, a.transpose == Transpose::no ? k : m, a.transpose),
           matrix_of(of_b, b.transpose == Transpose::no ? n : k, b.transpose), beta, c, c_stride);
}

void multiply_converted(std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                        const Matrix<BFloat16>& b, float beta, BFloat16* c, std::int64_t c_stride) {
  std::vector<float> sums = converted(m, n, c, c_stride);
  multiply_converted(m, n, k, a, b, beta, sums.data(), n);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      store(c + i * c_stride + j, sums[static_cast<std::size_t>(i * n + j)]);
}

/// A share of the rows or of the columns for every thread, whichever are more: each share packs its part of
/// b.
template <class C>
void multiply_in_shares(std::int64_t m, std::int64_t n, std::int64_t k, const Matrix<BFloat16>& a,
                        const Matrix<BFloat16>& b, float beta, C* c, std::int64_t c_stride) {
  constexpr std::int64_t least_work =
      1 << 20;  // products, below which a second thread costs more than it saves
  const std::int64_t threads = omp_in_parallel() || m * n * k < least_work ? 1 : omp_get_max_threads();
  if (threads == 1) return multiply_on_tiles(m, n, k, a, b, beta, c, c_stride);
  const bool cuts_rows = m >= n;
  const std::int64_t size = cuts_rows ? m : n;
  const std::int64_t share =
      ((size + threads - 1) / threads + tile_columns - 1) / tile_columns * tile_columns;
  ParallelError error;
#pragma omp parallel for schedule(static, 1)
  for (std::int64_t begin = 0; begin < size; begin += share)
    error.guard([&] {
      const std::int64_t part = std::min(share, size - begin);
      if (cuts_rows)
        multiply_on_tiles(part, n, k, from_row(a, begin), b, beta, c + begin * c_stride, c_stride);
      else
        multiply_on_tiles(m, part, k, a, from_column(b, begin), beta, c + begin, c_stride);
    });
  error.rethrow();
}

template <class C>
void multiply_into(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const Matrix<BFloat16>& a,
                   const Matrix<BFloat16>& b, float beta, C* c, std::int64_t c_stride) {
  check(alpha == 1 && (beta == 0 || beta == 1), "multiply: alpha ", alpha, " and beta ", beta,
        " came for bfloat16, where they must be 1, and 0 or 1");
  if (m == 0 || n == 0) return;
  if (k == 0) {
    // An empty sum, which oneDNN may leave undone.
    for (std::int64_t i = 0; i < m && beta == 0; ++i) std::fill_n(c + i * c_stride, n, C{});
    return;
  }
  if (has_bfloat16_tiles()) return multiply_in_shares(m, n, k, a, b, beta, c, c_stride);
  if (!multiplies_bfloat16()) return multiply_converted(m, n, k, a, b, beta, c, c_stride);
  try {
    Products::of_thread().multiply({a.transpose, b.transpose, beta == 1, std::is_same_v<C, BFloat16>}, m, n,
                                   k, a, b, c, c_stride);
  } catch (const dnnl::error& error) {
    fail(Fault::machine, "oneDNN: the bfloat16 product of ", m, " x ", n, " x ", k, " gave status ",
         static_cast<int>(error.status), ": ", error.what(), lack_of_code_memory());
  }
}

}  // namespace

namespace {

/// The name of oneDNN's implementation; "" where it has none.
const std::string& implementation() {
  static const std::string name = [] {
    try {
      return std::string(
          Products::of_thread().describe({Transpose::no, Transpose::no, false, false}).impl_info_str());
    } catch (const dnnl::error&) {
      return std::string();
    }
  }();
  return name;
}

}  // namespace

bool multiplies_bfloat16() {
  // The reference implementation is a thousand times slower than conversion.
  return !implementation().empty() && !implementation().starts_with("ref");
}

std::string bfloat16_products() {
  if (has_bfloat16_tiles()) return "on AMX tiles";
  if (multiplies_bfloat16()) return join_text("by oneDNN's ", implementation(), ", since ", why_no_tiles());
  return join_text("in fp32 on converted copies, so no faster, since oneDNN has no instructions for it here",
                   lack_of_code_memory());
}

void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<BFloat16> a,
              Matrix<BFloat16> b, float beta, float* c, std::int64_t c_stride) {
  multiply_into(m, n, k, alpha, a, b, beta, c, c_stride);
}
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, Matrix<BFloat16> a,
              Matrix<BFloat16> b, float beta, BFloat16* c, std::int64_t c_stride) {
  multiply_into(m, n, k, alpha, a, b, beta, c, c_stride);
}

}  // namespace conclave::cpu
