// Products on AMX tiles against plain loops in float64, over sizes that fill no tile, cut rows and columns,
// and go over several parts of the sums. The op table meets them again behind the kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/base/random.h"
#include "framework/kernels/cpu/storage.h"
#include "framework/kernels/cpu/tile_product.h"

namespace conclave::cpu {
namespace {

constexpr std::int64_t gap = 3;  // numbers between rows, which must stay as they are

struct Sizes {
  std::int64_t m, n, k;
};

/// A stored matrix whose op is [rows, columns], with a gap behind each row.
struct Stored {
  Stored(std::int64_t rows, std::int64_t columns, Transpose transpose, std::uint64_t seed)
      : stride((transpose == Transpose::no ? columns : rows) + gap),
        transpose_(transpose),
        numbers(static_cast<std::size_t>((transpose == Transpose::no ? rows : columns) * stride)) {
    const RandomKey key(seed);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] = to_bfloat16(static_cast<float>(key.normal(i)));
  }
  Matrix<BFloat16> matrix() const { return {numbers.data(), stride, transpose_}; }
  double at(std::int64_t row, std::int64_t column) const {
    const std::int64_t place = transpose_ == Transpose::no ? row * stride + column : column * stride + row;
    return to_float(numbers[static_cast<std::size_t>(place)]);
  }
  std::int64_t stride;
  Transpose transpose_;
  std::vector<BFloat16> numbers;
};

template <class C>
std::vector<C> initial(const Sizes& z) {
  std::vector<C> c(static_cast<std::size_t>(z.m * (z.n + gap)));
  for (std::size_t i = 0; i < c.size(); ++i) store(&c[i], static_cast<float>(i % 7) - 3.0F);
  return c;
}

/// The largest error of a product over what rounding allows: float32's over k, and bfloat16's once.
template <class C>
double error_of(const Sizes& z, Transpose transpose_a, Transpose transpose_b, float beta) {
  const Stored a(z.m, z.k, transpose_a, 1), b(z.k, z.n, transpose_b, 2);
  std::vector<C> c = initial<C>(z);
  const std::vector<C> before = c;
  multiply_on_tiles(z.m, z.n, z.k, a.matrix(), b.matrix(), beta, c.data(), z.n + gap);
  double worst = 0;
  for (std::int64_t i = 0; i < z.m; ++i)
    for (std::int64_t j = 0; j < z.n + gap; ++j) {
      const auto place = static_cast<std::size_t>(i * (z.n + gap) + j);
      double expected = load(&before[place]), size = std::abs(expected);
      if (j < z.n) {
        expected *= static_cast<double>(beta);
        for (std::int64_t p = 0; p < z.k; ++p) {
          expected += a.at(i, p) * b.at(p, j);
          size += std::abs(a.at(i, p) * b.at(p, j));
        }
      }
      const double rounding = std::is_same_v<C, float> ? 0 : std::ldexp(std::abs(expected), -8);
      const double error = std::abs(load(&c[place]) - expected);
      worst = std::max(worst, j < z.n ? error / (1e-6 * size + rounding) : error * 1e9);
    }
  return worst;
}

class TileProduct : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_bfloat16_tiles()) GTEST_SKIP() << "No product ran on tiles: " << why_no_tiles();
  }
};

TEST_F(TileProduct, IsThatOfPlainLoops) {
  for (const std::int64_t m : {1, 5, 16, 17, 32, 33, 70})
    for (const std::int64_t n : {1, 16, 31, 32, 33, 65})
      for (const std::int64_t k : {1, 2, 31, 32, 33, 100, 700})
        for (const Transpose a : {Transpose::no, Transpose::yes})
          for (const Transpose b : {Transpose::no, Transpose::yes})
            for (const float beta : {0.0F, 1.0F}) {
              const Sizes z{m, n, k};
              ASSERT_LE(error_of<float>(z, a, b, beta), 1) << m << " x " << n << " x " << k;
              ASSERT_LE(error_of<BFloat16>(z, a, b, beta), 1) << m << " x " << n << " x " << k;
            }
}

/// More columns than are packed at once, and rows of a that lie in tiles already.
TEST_F(TileProduct, GoesOverSeveralPartsOfTheColumns) {
  EXPECT_LE(error_of<float>({40, 1100, 512}, Transpose::no, Transpose::yes, 1.0F), 1);
  EXPECT_LE(error_of<BFloat16>({40, 1100, 512}, Transpose::no, Transpose::no, 0.0F), 1);
  EXPECT_LE(error_of<BFloat16>({40, 64, 1088}, Transpose::no, Transpose::no, 1.0F), 1);
}

/// However rows and columns are shared out over threads, each number stays what it was.
TEST_F(TileProduct, HasTheSameBitsWhereverItIsCut) {
  const Sizes z{90, 96, 1100};
  const Stored a(z.m, z.k, Transpose::no, 1), b(z.k, z.n, Transpose::yes, 2);
  const auto product = [&](std::int64_t rows, std::int64_t columns) {
    std::vector<float> c = initial<float>(z);
    for (std::int64_t i = 0; i < z.m; i += rows)
      for (std::int64_t j = 0; j < z.n; j += columns)
        multiply_on_tiles(std::min(rows, z.m - i), std::min(columns, z.n - j), z.k, from_row(a.matrix(), i),
                          from_column(b.matrix(), j), 1.0F, c.data() + i * (z.n + gap) + j, z.n + gap);
    return c;
  };
  const std::vector<float> whole = product(z.m, z.n);
  EXPECT_EQ(product(45, z.n), whole);
  EXPECT_EQ(product(7, 32), whole);
  EXPECT_EQ(product(z.m, 64), whole);
}

/// A part of a packed matrix: what attention does with the keys that a block of queries sees.
TEST_F(TileProduct, TakesPartsOfAPackedMatrix) {
  const std::int64_t m = 20, n = 130, k = 100;
  const Stored a(m, k, Transpose::no, 1), b(k, n, Transpose::no, 2);
  TileMatrix packed;
  packed.pack(k, n, b.matrix());
  const std::int64_t first_row = 32, rows = 68, first_column = 64, columns = 66;
  std::vector<float> c(static_cast<std::size_t>(m * columns));
  multiply_on_tiles(m, from_column(a.matrix(), first_row), packed, first_row, rows, first_column, columns,
                    0.0F, c.data(), columns);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < columns; ++j) {
      double expected = 0;
      for (std::int64_t p = first_row; p < k; ++p) expected += a.at(i, p) * b.at(p, first_column + j);
      ASSERT_NEAR(c[static_cast<std::size_t>(i * columns + j)], expected, 1e-4) << i << ", " << j;
    }
}

}  // namespace
}  // namespace conclave::cpu
