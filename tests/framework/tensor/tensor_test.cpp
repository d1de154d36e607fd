// Tensor: shared memory of slices, errors that name what came and what was expected, and the caching
// allocator.
#include "framework/tensor/tensor.h"
#include "framework/tensor/host_copies.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>

namespace conclave {
namespace {

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Tensor, SlicesShareMemoryAndClonesDoNot) {
  const Tensor x = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, {3, 2});
  const Tensor middle = x.slice(1, 2), clone = x.clone();
  EXPECT_EQ(middle.shape(), (Shape{1, 2}));
  EXPECT_EQ(middle.to_host<float>(), (std::vector<float>{2, 3}));
  middle.fill_zero();
  EXPECT_EQ(x.to_host<float>(), (std::vector<float>{0, 1, 0, 0, 4, 5}));
  EXPECT_EQ(clone.to_host<float>(), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(x.part(3, {2}).to_host<float>(), (std::vector<float>{0, 4}));
  EXPECT_EQ(x.slice(1, 3).slice(1, 2).to_host<float>(), (std::vector<float>{4, 5}));
  EXPECT_EQ(x.view({2, 3}).slice(1, 2).to_host<float>(), (std::vector<float>{0, 4, 5}));
  EXPECT_EQ(x.slice(3, 3).elements(), 0);
  clone.copy_from(x);
  EXPECT_EQ(clone.to_host<float>(), x.to_host<float>());
}

TEST(Tensor, ItemReadsEveryType) {
  EXPECT_EQ(Tensor::from(std::vector<float>{1.5f}, {1}).item(), 1.5);
  EXPECT_EQ(Tensor::from(std::vector<double>{-2.25}, {}).item(), -2.25);
  EXPECT_EQ(Tensor::from(std::vector<std::int32_t>{7}, {1, 1}).item(), 7);
  EXPECT_EQ(Tensor::from(std::vector<std::int64_t>{1ll << 40}, {1}).item(), 0x1.0p40);
  EXPECT_EQ(Tensor::zeros({4}, DType::int64).to_host<std::int64_t>(),
            (std::vector<std::int64_t>{0, 0, 0, 0}));
}

TEST(Tensor, ErrorsSayWhatCameAndWhatWasExpected) {
  const Tensor x = Tensor::zeros({3, 2}, DType::float32);
  EXPECT_EQ(message_of([&] { x.data<double>(); }), "Tensor::data: float64 was asked of a tensor of float32");
  EXPECT_EQ(message_of([&] { x.view({4, 2}); }), "Tensor::view: shape [4, 2] has another size than [3, 2]");
  EXPECT_EQ(message_of([&] { x.slice(2, 4); }), "Tensor::slice: rows 2 to 4 were asked of shape [3, 2]");
  EXPECT_EQ(message_of([&] { x.slice(2, 1); }), "Tensor::slice: rows 2 to 1 were asked of shape [3, 2]");
  EXPECT_EQ(message_of([&] { x.part(5, {2}); }), "Tensor::part: elements 5 to 7 were asked of shape [3, 2]");
  EXPECT_EQ(message_of([&] { x.item(); }), "Tensor::item: one element was expected, shape [3, 2] came");
  EXPECT_EQ(message_of([&] { Tensor::from(std::vector<float>{1}, {2}); }),
            "Tensor::from: 1 values came for shape [2]");
  EXPECT_EQ(message_of([&] {
              x.copy_from(Tensor::zeros({3, 2}, DType::float64));
            }),
            "Tensor::copy_from: other is float64 [3, 2], expected float32 [3, 2]");
  EXPECT_EQ(message_of([&] { check_tensor(Tensor(), "linear", "x", {1}, DType::float32); }),
            "linear: x is missing");
  EXPECT_EQ(message_of([&] { with_float_type(DType::int32, [](auto) {}); }),
            "a tensor of int32 came, float32 or float64 was expected");
}

TEST(Allocator, GivesAlignedMemoryAndReusesIt) {
  void* first = nullptr;
  {
    const Tensor x = Tensor::empty({1000, 77}, DType::float32);
    first = x.raw();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0u);
  }
  const std::size_t held = cpu_device().memory_use().held;
  const Tensor slightly_smaller = Tensor::empty({995, 77}, DType::float32);
  EXPECT_EQ(slightly_smaller.raw(), first)
      << "row counts change a little from step to step and should find the block";
  EXPECT_EQ(cpu_device().memory_use().held, held);
}

TEST(Allocator, CountsLiveAndPeak) {
  Device& device = cpu_device();
  device.reset_peak();
  const MemoryUse before = device.memory_use();
  {
    const Tensor x = Tensor::empty({1 << 20}, DType::float64);
    const Tensor sharing = x.slice(0, 10), same = x;
    EXPECT_EQ(device.memory_use().live, before.live + (8u << 20));
  }
  {
    const Tensor y = Tensor::empty({1 << 18}, DType::float32);
    EXPECT_EQ(device.memory_use().live, before.live + (1u << 20));
  }
  EXPECT_EQ(device.memory_use().live, before.live);
  EXPECT_EQ(device.memory_use().peak, before.live + (8u << 20));
  device.reset_peak();
  EXPECT_EQ(device.memory_use().peak, before.live);
}

TEST(Allocator, SizesAreRoundedUpByAtMostAnEighth) {
  for (std::size_t bytes = 0; bytes < 100000; bytes += 37) {
    const auto buffer = cpu_device().allocate(bytes);
    EXPECT_GE(buffer->bytes(), bytes);
    EXPECT_LE(buffer->bytes(), bytes + std::max<std::size_t>(64, bytes / 8 + 1)) << bytes;
  }
}

TEST(Allocator, SaysWhenThereIsNoMemory) {
  try {
    cpu_device().allocate(std::size_t{1} << 60);
    FAIL() << "2^60 bytes were handed out";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::machine);
  }
}

TEST(HostCopies, BringWhatLiesOnOneDeviceWithOneWait) {
  for (Device* device : {&cpu_device(), &emulated_device()}) {
    const std::vector<float> odd{1, 2, 3};  // 12 bytes, so that what follows must be aligned
    const std::vector<double> numbers{0.5, -7};
    const std::vector<std::int64_t> counts{1, 2, 3, 4};
    const Tensor whole = Tensor::from(counts, {4}, *device);
    const std::vector<Tensor> tensors{Tensor::from(odd, {3}, *device), Tensor(),
                                      Tensor::from(numbers, {2, 1}, *device), whole.slice(1, 3),
                                      Tensor::empty({0}, DType::int32, *device)};
    const std::int64_t before = device->host_waits();
    const HostCopies copies(tensors);
    EXPECT_EQ(device->host_waits() - before, device->kind() == DeviceKind::cpu ? 0 : 1);
    EXPECT_EQ(copies.of<float>(0), odd);
    EXPECT_EQ(copies.of<float>(1), std::vector<float>());
    EXPECT_EQ(copies.of<double>(2), numbers);
    EXPECT_EQ(copies.of<std::int64_t>(3), (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(copies.of<std::int32_t>(4), std::vector<std::int32_t>());
    EXPECT_THROW(copies.of<float>(2), Error);
  }
  EXPECT_THROW(
      HostCopies({Tensor::zeros({1}, DType::float32), Tensor::zeros({1}, DType::float32, emulated_device())}),
      Error);
}

}  // namespace
}  // namespace conclave
