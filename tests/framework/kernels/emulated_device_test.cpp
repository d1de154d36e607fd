// The promises of the emulated device: its memory is closed to the host, new memory holds no numbers, threads
// of a block wait for each other or say why they cannot, neighbouring blocks run at once. And the build
// without a GPU says so.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>

#include "framework/device/emulated_memory.h"
#include "framework/kernels/backends.h"
#include "framework/kernels/cuda/reduction.cuh"
#include "framework/kernels/cuda/storage.cuh"

namespace conclave::emulated {
namespace {

Tensor new_tensor(std::int64_t elements, DType dtype = DType::float32) {
  return Tensor::empty({elements}, dtype, emulated_device());
}

template <class Function>
std::string sentence_of(Function&& function, Fault fault) {
  try {
    function();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), fault);
    return error.what();
  }
  return "no error";
}

TEST(EmulatedMemory, GoesToTheHostAndBack) {
  const std::vector<float> values{1, 2, 3, 4};
  const Tensor host = Tensor::from(values, {4}), there = new_tensor(4), twin = new_tensor(4);
  there.copy_from(host);
  twin.copy_from(there);
  EXPECT_EQ(twin.to_host<float>(), values);
  const Tensor back = Tensor::zeros({4}, DType::float32);
  back.copy_from(twin.clone());
  EXPECT_EQ(back.to_host<float>(), values);
  twin.fill_zero();
  EXPECT_EQ(twin.to_host<float>(), std::vector<float>(4));
  EXPECT_EQ(there.slice(2, 3).item(), 3);
}

TEST(EmulatedMemory, StartsWithoutNumbersAlsoWhenUsedAgain) {
  for (int round = 0; round < 2; ++round) {
    const Tensor tensor = new_tensor(1000);
    EXPECT_TRUE(std::isnan(tensor.to_host<float>()[999])) << round;
    tensor.fill_zero();
  }
}

TEST(EmulatedMemory, IsCountedAndUsedAgain) {
  const MemoryUse before = emulated_device().memory_use();
  const void* address = nullptr;
  for (int round = 0; round < 2; ++round) {
    const Tensor tensor = new_tensor(777777);
    EXPECT_GE(emulated_device().memory_use().live, before.live + 777777 * 4);
    if (round == 1) {
      EXPECT_EQ(tensor.raw(), address);
    }
    address = tensor.raw();
  }
  EXPECT_EQ(emulated_device().memory_use().live, before.live);
}

TEST(EmulatedMemory, RefusesToTakeHostForDevice) {
  const Tensor there = new_tensor(1 << 18);
  std::vector<float> here(4);
  const auto copy = [&](void* to, const void* from) {
    return sentence_of([&] { emulated_device().copy(to, from, 16); }, Fault::internal);
  };
  EXPECT_EQ(copy(here.data(), there.raw()),
            "emulated: cudaMemcpyAsync on the device: the target lies in the memory of the host, expected "
            "the other");
  EXPECT_EQ(copy(there.raw(), here.data()),
            "emulated: cudaMemcpyAsync on the device: the source lies in the memory of the host, expected "
            "the other");
  EXPECT_EQ(
      sentence_of([&] { emulated_device().copy_from_host(here.data(), here.data(), 16); }, Fault::internal),
      "emulated: cudaMemcpyAsync to the device: the target lies in the memory of the host, expected the "
      "other");
  EXPECT_EQ(sentence_of([&] { emulated_device().copy_to_host(there.raw(), there.raw(), 1 << 20); },
                        Fault::internal),
            "emulated: cudaMemcpyAsync to the host: the target lies in the memory of the device, expected "
            "the other");
}

using EmulatedMemoryDeathTest = testing::Test;

TEST(EmulatedMemoryDeathTest, FaultsUnderTheHand) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto look = [] {
    const Tensor tensor = Tensor::from(std::vector<float>{1, 2}, {2}, emulated_device());
    explain_emulated_faults();
    const volatile float* values = tensor.data<float>();
    std::exit(values[0] == 1.0f ? 0 : 1);
  };
  EXPECT_DEATH(look(), "emulated: the host touched device memory outside a kernel or copy");
}

KERNEL copy_shared_kernel(float* seen, bool write) {
  SHARED(float, values, block_threads);
  if (write) values[thread_index()] = 7;
  sync_block();
  seen[block_index() * block_size() + thread_index()] = values[block_size() - 1 - thread_index()];
}

TEST(SharedMemory, StartsWithoutNumbersInEveryBlock) {
  const Tensor seen = new_tensor(8 * block_threads);
  launch({.blocks = 8}, copy_shared_kernel, seen.data<float>(), true);
  for (const float value : seen.to_host<float>()) ASSERT_EQ(value, 7);
  launch({.blocks = 8}, copy_shared_kernel, seen.data<float>(), false);
  for (const float value : seen.to_host<float>())
    ASSERT_TRUE(std::isnan(value)) << "an uninitialised shared read";
}

KERNEL dynamic_shared_kernel(float* seen, bool write) {
  SHARED_DYNAMIC(float, values);
  if (write) values[thread_index()] = 7;
  sync_block();
  seen[thread_index()] = values[block_size() - 1 - thread_index()];
}

TEST(SharedMemory, OfALaunchStartsWithoutNumbers) {
  const Tensor seen = new_tensor(block_threads);
  const LaunchShape shape{.blocks = 1, .shared_bytes = block_threads * sizeof(float)};
  launch(shape, dynamic_shared_kernel, seen.data<float>(), true);
  EXPECT_EQ(seen.to_host<float>()[3], 7);
  launch(shape, dynamic_shared_kernel, seen.data<float>(), false);
  EXPECT_TRUE(std::isnan(seen.to_host<float>()[3]));
}

KERNEL too_much_shared_kernel(float* seen) {
  SHARED(float, values, 13 * 1024);
  values[thread_index()] = seen[0];
}

TEST(SharedMemory, IsNoLargerThanThatOfAGpu) {
  const Tensor seen = new_tensor(1);
  EXPECT_EQ(sentence_of([&] { launch({.blocks = 1}, too_much_shared_kernel, seen.data<float>()); },
                        Fault::internal),
            "emulated: the shared arrays of a block take 53248 bytes, a GPU has 49152");
}

KERNEL reduce_kernel(std::int32_t* sums, std::int32_t* largest, std::int32_t* eighths) {
  const int value = thread_index() * 3 % 17;
  const int at = static_cast<int>(block_index()) * block_size() + thread_index();
  const int before = block_reduce(value + 1, Sum{});  // the same array twice
  sums[at] = block_reduce(value, Sum{}) - before;
  largest[at] = block_reduce(value, Maximum{});
  eighths[at] = warp_reduce(thread_index(), Sum{}, 8);
}

TEST(Reduction, GivesEveryThreadTheSame) {
  const Tensor sums = new_tensor(3 * block_threads, DType::int32),
               largest = new_tensor(3 * block_threads, DType::int32);
  const Tensor eighths = new_tensor(3 * block_threads, DType::int32);
  launch({.blocks = 3}, reduce_kernel, sums.data<std::int32_t>(), largest.data<std::int32_t>(),
         eighths.data<std::int32_t>());
  EXPECT_EQ(sums.to_host<std::int32_t>(), std::vector<std::int32_t>(3 * block_threads, -block_threads));
  EXPECT_EQ(largest.to_host<std::int32_t>(), std::vector<std::int32_t>(3 * block_threads, 16));
  EXPECT_EQ(eighths.to_host<std::int32_t>()[13], 8 + 9 + 10 + 11 + 12 + 13 + 14 + 15);
}

KERNEL one_stays_away_kernel(int who) {
  if (thread_index() != who) sync_block();
}
KERNEL different_places_kernel() {
  if (thread_index() < 5)
    sync_warp();
  else
    sync_block();
}

TEST(Barriers, ThatSomeNeverReachAreAnErrorAndNoHang) {
  for (int round = 0; round < 2; ++round) {  // the device works on afterwards
    EXPECT_EQ(sentence_of([] { launch({.blocks = 1}, one_stays_away_kernel, 3); }, Fault::internal),
              "emulated: the 64 threads of block 0 wait for each other in vain: 63 at sync_block, 0 at "
              "sync_warp, 0 at "
              "a shuffle, 1 returned");
    EXPECT_EQ(sentence_of([] { launch({.blocks = 1}, different_places_kernel); }, Fault::internal),
              "emulated: the 64 threads of block 0 wait for each other in vain: 59 at sync_block, 5 at "
              "sync_warp, 0 at "
              "a shuffle, 0 returned");
  }
  launch({.blocks = 3}, one_stays_away_kernel, -1);
}

KERNEL shuffle_too_far_kernel(int lane) {
  shuffle(thread_index(), lane);
}

TEST(Shuffles, BeyondTheWarpAreAnError) {
  EXPECT_EQ(sentence_of([] { launch({.blocks = 3}, shuffle_too_far_kernel, 32); }, Fault::internal),
            "emulated: a shuffle asks for lane 32");
  launch({.blocks = 3}, shuffle_too_far_kernel, 31);
}

/// Blocks 0 and 1 each wait for the other to have come; patience in milliseconds.
KERNEL meet_kernel(std::int32_t* came, std::int32_t* met, int patience) {
  if (thread_index() != 0) return;
  std::atomic_ref(came[block_index()]).store(1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience);
  while (std::chrono::steady_clock::now() < end && std::atomic_ref(came[1 - block_index()]).load() == 0) {
  }
  met[block_index()] = std::atomic_ref(came[1 - block_index()]).load();
}

TEST(Blocks, TwoRunAtOnce) {
  const Tensor came = Tensor::zeros({2}, DType::int32, emulated_device()), met = came.clone();
  launch({.blocks = 2}, meet_kernel, came.data<std::int32_t>(), met.data<std::int32_t>(), 10000);
  EXPECT_EQ(met.to_host<std::int32_t>(), (std::vector<std::int32_t>{1, 1}));
}

TEST(Float64, IsRefusedWithASentence) {
  const Tensor x = new_tensor(4, DType::float64);
  EXPECT_NE(sentence_of([&] { kernels_of(x).add(x, x, x); }, Fault::request).find("training.precision: fp32"),
            std::string::npos);
}

TEST(Cuda, WithoutAGpuIsTheRequestsFault) {
  try {
    cuda_device();
    GTEST_SKIP() << "there is a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    EXPECT_EQ(std::string(error.what()).find("training.device: cuda came, but this "), 0u) << error.what();
  }
}

}  // namespace
}  // namespace conclave::emulated
