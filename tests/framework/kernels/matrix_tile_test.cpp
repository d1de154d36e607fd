// The words of the dialect for tensor cores and asynchronous copies: they compute what they say, and what is
// forgotten around them is seen in every build. What only ThreadSanitizer sees is in device_code_test.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "framework/base/random.h"
#include "framework/kernels/cuda/matrix_tile.h"
#include "framework/tensor/tensor.h"

namespace conclave::emulated {
namespace {

constexpr int side = tile_side, stride = 24;  // longer than a row

/// factors[row] * 2 left right, by the first warp; `right` holds rows or columns of the factor.
template <TileOrder order>
KERNEL multiply_kernel(const BFloat16* left, const BFloat16* right, const float* factors, float* result) {
  SHARED(float, scratch, side* side);
  if (warp_index() > 0) return;
  LeftTile a;
  RightTile<order> b;
  SumTile sum;
  const TileRows rows = rows_of_tile(scratch);
  load_tile(a, left, stride);
  load_tile(b, right, stride);
  clear_tile(sum);
  multiply_add(sum, a, b);
  multiply_add(sum, a, b);
  scale_rows(sum, rows, factors);
  store_tile(result, sum, stride);
}

template <TileOrder order>
void expect_product() {
  std::vector<BFloat16> left(side * stride), right(side * stride);
  std::vector<float> factors(side);
  const RandomKey key = RandomKey(1).with("tile");
  for (std::size_t i = 0; i < left.size(); ++i) {
    left[i] = to_bfloat16(static_cast<float>(key.normal(i)));
    right[i] = to_bfloat16(static_cast<float>(key.normal(i + left.size())));
  }
  for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = static_cast<float>(i) - 3;
  Device& device = emulated_device();
  const Tensor result = Tensor::zeros({side * stride}, DType::float32, device);
  const Shape shape{side * stride};
  launch({.blocks = 1}, multiply_kernel<order>, Tensor::from(left, shape, device).data<BFloat16>(),
         Tensor::from(right, shape, device).data<BFloat16>(),
         Tensor::from(factors, {side}, device).data<float>(), result.data<float>());
  const std::vector<float> got = result.to_host<float>();
  for (std::size_t r = 0; r < side; ++r)
    for (std::size_t c = 0; c < stride; ++c) {
      double expected = 0;
      for (std::size_t k = 0; k < side && c < side; ++k)
        expected += 2.0 * factors[r] * to_float(left[r * stride + k]) *
                    to_float(right[order == TileOrder::rows ? k * stride + c : c * stride + k]);
      EXPECT_NEAR(got[r * stride + c], expected, 1e-4) << r << ", " << c;
    }
}

TEST(MatrixTile, MultipliesRowsByRowsAndByColumns) {
  expect_product<TileOrder::rows>();
  expect_product<TileOrder::columns>();
}

KERNEL apart_kernel(const BFloat16* left) {
  LeftTile tile;
  load_tile(tile, left + (lane_index() == 5 ? stride : 0), stride);
}
KERNEL one_lane_less_kernel(const BFloat16* left) {
  LeftTile tile;
  if (lane_index() != 5) load_tile(tile, left, stride);
}

TEST(MatrixTile, IsAWordOfTheWholeWarp) {
  const Tensor left = Tensor::zeros({2 * side * stride}, DType::bfloat16, emulated_device());
  const auto sentence_of = [&](auto* kernel) {
    try {
      launch({.blocks = 1}, kernel, left.data<BFloat16>());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(sentence_of(apart_kernel).find("different arguments"), std::string::npos);
  EXPECT_NE(sentence_of(one_lane_less_kernel).find("wait for each other in vain"), std::string::npos);
}

/// Two batches of 16 bytes a thread, of which all but `pending` are waited for.
template <int pending>
KERNEL copy_kernel(const float* from, float* to) {
  SHARED(float, first, 4 * block_threads);
  SHARED(float, second, 4 * block_threads);
  const int at = 4 * thread_index();
  copy_async(first + at, from + at);
  commit_copies();
  copy_async(second + at, from + 4 * block_threads + at);
  commit_copies();
  wait_copies<pending>();
  sync_block();
  const int other = 4 * (block_size() - 1 - thread_index());
  for (int i = 0; i < 4; ++i) {
    to[at + i] = first[other + i];
    to[4 * block_threads + at + i] = second[other + i];
  }
}

/// How many of the values of each batch arrived.
template <int pending>
std::pair<int, int> arrived() {
  std::vector<float> values(8 * block_threads);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Shape shape{8 * block_threads};
  const Tensor to = Tensor::zeros(shape, DType::float32, emulated_device());
  launch({.blocks = 1}, copy_kernel<pending>, Tensor::from(values, shape, emulated_device()).data<float>(),
         to.data<float>());
  std::pair<int, int> found;
  const std::vector<float> got = to.to_host<float>();
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool in_first = i < got.size() / 2;
    const std::size_t in_half = i % (got.size() / 2), base = in_first ? 0 : got.size() / 2;
    const std::size_t source = base + 4 * (block_threads - 1 - in_half / 4) + in_half % 4;
    if (got[i] == values[source])
      ++(in_first ? found.first : found.second);
    else
      EXPECT_TRUE(std::isnan(got[i])) << i;
  }
  return found;
}

TEST(AsynchronousCopy, ArrivesAtTheWaitAndHoldsNoNumbersBefore) {
  constexpr int all = 4 * block_threads;
  EXPECT_EQ(arrived<0>(), std::pair(all, all));
  EXPECT_EQ(arrived<1>(), std::pair(all, 0));
  EXPECT_EQ(arrived<2>(), std::pair(0, 0));
}

KERNEL misaligned_copy_kernel(const float* from) {
  SHARED(float, to, 4 * block_threads);
  copy_async(to, from + 1);
}

TEST(AsynchronousCopy, RefusesMisalignedAddresses) {
  const Tensor from = Tensor::zeros({64}, DType::float32, emulated_device());
  EXPECT_THROW(launch({.blocks = 1}, misaligned_copy_kernel, from.data<float>()), Error);
}

}  // namespace
}  // namespace conclave::emulated
