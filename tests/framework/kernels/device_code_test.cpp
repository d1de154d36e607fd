// All device code under a sanitizer: the op table on the emulated device with nothing around the tensors,
// over shapes small enough for it. And the sanitizers see what they are for: each planted mistake is told by
// its name.
#include <gtest/gtest.h>

#include <algorithm>

#include "framework/device/sanitizer.h"
#include "framework/kernels/cuda/grouped_product.cuh"
#include "framework/kernels/cuda/matrix_tile.h"
#include "framework/kernels/cuda/storage.cuh"
#include "tests/framework/kernels/op_table.h"

/// The first race ends the program.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() {
  return "halt_on_error=1:exitcode=66";
}

namespace conclave::test {
namespace {

/// Small, and no matrix product: those are a library's.
std::vector<OpCase> small_cases() {
  constexpr std::int64_t most_elements = 20000;
  std::vector<OpCase> cases;
  for (auto* family : {elementwise_cases, attention_cases, vocabulary_cases, routing_cases, pool_cases})
    for (OpCase& op : family()) {
      std::int64_t elements = 0;
      for (const Slot& slot : op.slots) elements += slot.shape.elements();
      // A walk on tiles uses its shared memory again from the third step on, all of it at the fourth.
      std::int64_t most = most_elements;
      if (op.name.find("_of_1_width_64_") != std::string::npos) most = 40000;
      if (op.name.find("_of_1_width_128_") != std::string::npos) most = 100000;
      if (elements <= most && op.name.rfind("linear_", 0) != 0) cases.push_back(std::move(op));
    }
  return cases;
}

TEST(DeviceCode, WalksOverBothStagesOfTheWidestTilesTwice) {
  const std::vector<OpCase> cases = small_cases();
  EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), [](const OpCase& op) {
    return op.name == "attention_1x97_heads_1_of_1_width_128_one";
  }));
}

TEST(DeviceCode, MeetsThePlainLoopsUnderASanitizer) {
  if (std::string_view(sanitizer::name) == "none") GTEST_SKIP() << "this build has no sanitizer";
  const std::vector<OpCase> cases = small_cases();
  EXPECT_GT(cases.size(), 100u);
  for (const OpCase& op : cases) {
    for (const DType dtype : types_of(op, emulated_device()))
      for (const std::string& problem : run_case(op, emulated_device(), dtype, Guard::none))
        ADD_FAILURE() << op.name << " in " << name_of(dtype) << ": " << problem;
  }
}

}  // namespace
}  // namespace conclave::test

namespace conclave::emulated {
namespace {

KERNEL turn_without_barrier(float* y) {
  SHARED(float, values, block_threads);
  values[thread_index()] = y[thread_index()];
  y[thread_index()] = values[block_size() - 1 - thread_index()];
}
KERNEL turn_in_warp_without_barrier(float* y) {
  SHARED(float, values, block_threads);
  values[thread_index()] = y[thread_index()];
  y[thread_index()] = shuffle_xor(values[thread_index() ^ 1], 1);  // a shuffle says nothing about memory
}
KERNEL count_blocks_without_atomic(float* y) {
  if (thread_index() == 0) y[0] += 1;
}
KERNEL write_one_too_far(float* y, std::int64_t count) {
  const std::int64_t i = block_index() * block_size() + thread_index();
  if (i <= count) y[i] = 1;
}
KERNEL read_one_too_far(float* y) {
  y[thread_index()] = y[thread_index() + 1];
}
KERNEL write_shared_one_too_far(float* y) {
  SHARED(float, values, block_threads);
  values[thread_index() + 1] = y[thread_index()];
}
KERNEL write_dynamic_one_too_far(float* y) {
  SHARED_DYNAMIC(float, values);
  values[thread_index() + 1] = y[thread_index()];
}

/// A tile goes from each warp to shared memory and comes back as the factor of another's product.
KERNEL multiply_tiles(const BFloat16* x, float* y, bool with_barrier) {
  SHARED(float, sums, tile_side* tile_side);
  SHARED(BFloat16, factor, tile_side * tile_side);
  if (warp_index() > 0) return;
  LeftTile left;
  RightTile<TileOrder::rows> right;
  SumTile sum;
  load_tile(left, x, tile_side);
  load_tile(right, x, tile_side);
  clear_tile(sum);
  multiply_add(sum, left, right);
  store_tile(sums, sum, tile_side);
  sync_warp();
  for (int i = lane_index(); i < tile_side * tile_side; i += warp_size) factor[i] = to_bfloat16(sums[i]);
  if (with_barrier) sync_warp();
  load_tile(left, factor, tile_side);
  multiply_add(sum, left, right);
  store_tile(y, sum, tile_side);
}
KERNEL read_copy_of_another(const float* from, float* y, bool with_barrier) {
  SHARED(float, values, 4 * block_threads);
  copy_async(values + 4 * thread_index(), from + 4 * thread_index());
  commit_copies();
  wait_copies<0>();
  if (with_barrier) sync_block();
  y[thread_index()] = values[4 * (block_size() - 1 - thread_index())];
}

/// With a barrier and an atomic, over and over: nothing to be seen.
KERNEL correct(float* y, std::int32_t* blocks) {
  SHARED(float, values, block_threads);
  for (int round = 0; round < 3; ++round) {
    values[thread_index()] = y[block_index() * block_size() + thread_index()];
    sync_block();
    y[block_index() * block_size() + thread_index()] = values[block_size() - 1 - thread_index()];
    sync_block();
  }
  if (thread_index() == 0) atomic_add(blocks, 1);
}

Tensor zeros(std::int64_t elements, DType dtype = DType::float32) {
  return Tensor::zeros({elements}, dtype, emulated_device());
}

/// This kernel is the only product in device code: more experts than threads, some of them without rows.
TEST(ExpertPointers, AreThoseOfTheExpertsThatHaveRows) {
  constexpr std::int64_t experts = block_threads + 7;
  std::vector<std::int64_t> offsets{0}, expected, live;
  for (std::int64_t e = 0; e < experts; ++e) {
    if (e % 3 != 1) live.push_back(e);
    offsets.push_back(offsets.back() + (e % 3 == 1 ? 0 : e % 5 + 1));
  }
  const Tensor matrices = zeros(1);
  const auto matrix = [&](std::int64_t row, std::int64_t expert) {
    return ExpertMatrix{matrices.raw(), row, expert};
  };
  const ExpertMatrix a = matrix(48, 0), b = matrix(0, 4096), c = matrix(80, 16);
  for (const ExpertMatrix& one : {a, b, c})
    for (const std::int64_t e : live)
      expected.push_back(reinterpret_cast<std::intptr_t>(one.of(e, offsets[static_cast<std::size_t>(e)])));
  const auto count = static_cast<std::int64_t>(live.size());
  const Tensor pointers = zeros(3 * count, DType::int64),
               on_device = Tensor::from(offsets, {experts + 1}, emulated_device());
  launch({.blocks = 1}, expert_pointers_kernel, on_device.data<std::int64_t>(), experts, a, b, c, count,
         static_cast<const void**>(pointers.raw()));
  EXPECT_EQ(pointers.to_host<std::int64_t>(), expected);
}

class Planted : public testing::Test {
 protected:
  void SetUp() override { testing::GTEST_FLAG(death_test_style) = "threadsafe"; }
  static bool under(const char* sanitizer) { return std::string_view(sanitizer::name) == sanitizer; }
};

TEST_F(Planted, NothingIsSeenInACorrectKernel) {
  const Tensor blocks = zeros(1, DType::int32);
  for (int round = 0; round < 3; ++round)
    launch({.blocks = 5}, correct, zeros(5 * block_threads).data<float>(), blocks.data<std::int32_t>());
  EXPECT_EQ(blocks.item(), 15);
  const Tensor x = zeros(tile_side * tile_side, DType::bfloat16), from = zeros(4 * block_threads);
  launch({.blocks = 1}, multiply_tiles, x.data<BFloat16>(), zeros(tile_side * tile_side).data<float>(), true);
  launch({.blocks = 1}, read_copy_of_another, from.data<float>(), zeros(block_threads).data<float>(), true);
}

TEST_F(Planted, AMissingBarrierBeforeATileIsLoaded) {
  if (!under("thread")) GTEST_SKIP() << "ThreadSanitizer sees it: the preset `thread`";
  const Tensor x = zeros(tile_side * tile_side, DType::bfloat16), y = zeros(tile_side * tile_side);
  EXPECT_EXIT(launch({.blocks = 1}, multiply_tiles, x.data<BFloat16>(), y.data<float>(), false),
              testing::ExitedWithCode(66), "data race(.|\n)*multiply_tiles");
}

TEST_F(Planted, AMissingBarrierBehindAsynchronousCopies) {
  if (!under("thread")) GTEST_SKIP() << "ThreadSanitizer sees it: the preset `thread`";
  const Tensor from = zeros(4 * block_threads), y = zeros(block_threads);
  EXPECT_EXIT(launch({.blocks = 1}, read_copy_of_another, from.data<float>(), y.data<float>(), false),
              testing::ExitedWithCode(66), "data race(.|\n)*read_copy_of_another");
}

TEST_F(Planted, AMissingBlockBarrier) {
  if (!under("thread")) GTEST_SKIP() << "ThreadSanitizer sees it: the preset `thread`";
  EXPECT_EXIT(launch({.blocks = 1}, turn_without_barrier, zeros(block_threads).data<float>()),
              testing::ExitedWithCode(66), "data race(.|\n)*turn_without_barrier");
}

TEST_F(Planted, AMissingWarpBarrier) {
  if (!under("thread")) GTEST_SKIP() << "ThreadSanitizer sees it: the preset `thread`";
  EXPECT_EXIT(launch({.blocks = 1}, turn_in_warp_without_barrier, zeros(block_threads).data<float>()),
              testing::ExitedWithCode(66), "data race(.|\n)*turn_in_warp_without_barrier");
}

TEST_F(Planted, ASumOverBlocksThatIsNotAtomic) {
  if (!under("thread")) GTEST_SKIP() << "ThreadSanitizer sees it: the preset `thread`";
  EXPECT_EXIT(launch({.blocks = 2}, count_blocks_without_atomic, zeros(1).data<float>()),
              testing::ExitedWithCode(66), "data race(.|\n)*count_blocks_without_atomic");
}

TEST_F(Planted, OneTooFar) {
  if (!under("address")) GTEST_SKIP() << "AddressSanitizer sees it: the preset `debug`";
  EXPECT_DEATH(launch({.blocks = 3}, write_one_too_far, zeros(100).data<float>(), 100),
               "use-after-poison(.|\n)*WRITE(.|\n)*write_one_too_far");
  EXPECT_DEATH(launch({.blocks = 1}, read_one_too_far, zeros(block_threads).data<float>()),
               "use-after-poison(.|\n)*READ(.|\n)*read_one_too_far");
}

TEST_F(Planted, OneTooFarInSharedMemory) {
  if (!under("address")) GTEST_SKIP() << "AddressSanitizer sees it: the preset `debug`";
  EXPECT_DEATH(launch({.blocks = 1}, write_shared_one_too_far, zeros(block_threads).data<float>()),
               "use-after-poison(.|\n)*write_shared_one_too_far");
  EXPECT_DEATH(launch({.blocks = 1, .shared_bytes = block_threads * sizeof(float)}, write_dynamic_one_too_far,
                      zeros(block_threads).data<float>()),
               "use-after-poison(.|\n)*write_dynamic_one_too_far");
}

TEST_F(Planted, UseAfterTheLastOwnerLeft) {
  if (!under("address")) GTEST_SKIP() << "AddressSanitizer sees it: the preset `debug`";
  float* dangling = zeros(block_threads + 1).data<float>();
  EXPECT_DEATH(launch({.blocks = 1}, read_one_too_far, dangling), "use-after-poison(.|\n)*read_one_too_far");
}

}  // namespace
}  // namespace conclave::emulated
