// The promises of streams, events, pinned memory and the cache of blocks, on the emulated device with its
// streams as late as can be: each promise beside the mistake of not keeping it, which gives a wrong result
// every time. AddressSanitizer ends the program at these mistakes, so there they are left out.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string_view>

#include "framework/device/named_range.h"
#include "framework/device/sanitizer.h"
#include "framework/device/stand_in/cuda_runtime.h"
#include "framework/kernels/backends.h"

namespace conclave::emulated {
namespace {

class Streams : public testing::Test {
 protected:
  Streams() { set_stream_mode(StreamMode::deferred); }
  ~Streams() override { set_stream_mode(StreamMode::eager); }

  static Tensor new_tensor(std::int64_t elements) {
    return Tensor::empty({elements}, DType::float32, device());
  }
  static Device& device() { return emulated_device(); }
  static cudaStream_t communication() { return static_cast<cudaStream_t>(device().communication_stream()); }
  /// On the communication stream, as a collective would.
  static void copy_there(const Tensor& from, const Tensor& to) {
    ASSERT_EQ(cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToDevice, communication()),
              cudaSuccess);
  }
};

enum class Waits { yes, no };
const bool plants_mistakes = std::string_view(sanitizer::name) == "none";

float value_after_crossing_streams(Device& device, Waits before, Waits after) {
  const Tensor from = Tensor::from(std::vector<float>{7}, {1}, device),
               to = Tensor::zeros({1}, DType::float32, device);
  void* stream = device.communication_stream();
  if (before == Waits::yes) device.wait_on(stream, device.record(device.stream()));
  cudaMemcpyAsync(to.raw(), from.raw(), 4, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream));
  if (after == Waits::yes) device.wait_on(device.stream(), device.record(stream));
  return to.to_host<float>()[0];
}

TEST_F(Streams, MeetAtEvents) {
  for (const StreamMode mode : {StreamMode::deferred, StreamMode::racing, StreamMode::eager}) {
    set_stream_mode(mode);
    EXPECT_EQ(value_after_crossing_streams(device(), Waits::yes, Waits::yes), 7);
  }
}

TEST_F(Streams, ShowAMissingWaitEveryTime) {
  if (!plants_mistakes) GTEST_SKIP() << "the sanitizer would end the program";
  for (int round = 0; round < 3; ++round) {
    set_stream_mode(StreamMode::deferred);
    EXPECT_EQ(value_after_crossing_streams(device(), Waits::yes, Waits::no), 0) << "no wait after it";
    set_stream_mode(StreamMode::racing);
    EXPECT_NE(value_after_crossing_streams(device(), Waits::no, Waits::yes), 7) << "no wait before it";
  }
  set_stream_mode(StreamMode::eager);
  EXPECT_EQ(value_after_crossing_streams(device(), Waits::no, Waits::no), 7) << "eager streams hide it";
}

TEST_F(Streams, RunNothingBeforeSomebodyWaits) {
  const Tensor x = Tensor::from(std::vector<float>(8, 1), {8}, device());
  cudaDeviceSynchronize();
  take_history();
  {
    const NamedRange range("first");
    kernels_of(x).add(x, x, x);
  }
  const std::shared_ptr<Event> middle = device().record(device().stream());
  {
    const NamedRange range("second");
    kernels_of(x).add(x, x, x);
  }
  EXPECT_TRUE(take_history().empty());
  EXPECT_FALSE(middle->passed());
  middle->wait();
  EXPECT_TRUE(middle->passed());
  EXPECT_EQ(take_history(), std::vector<std::string>{"first: kernel"});
  EXPECT_EQ(x.to_host<float>()[7], 4);
  EXPECT_EQ(take_history(), (std::vector<std::string>{"second: kernel", "cudaMemcpyAsync to the host"}));
}

TEST_F(Streams, AnEventThatIsAskedForLongPasses) {
  const Tensor x = Tensor::zeros({8}, DType::float32, device());
  const std::shared_ptr<Event> event = device().record(device().stream());
  for (int i = 0; i < 50; ++i) EXPECT_FALSE(event->passed());
  while (!event->passed()) {
  }
}

TEST_F(Streams, KeepABlockFromItsNextUserWhileTheyNeedIt) {
  for (const bool told : {true, false}) {
    if (!told && !plants_mistakes) continue;
    const Tensor seen = Tensor::zeros({999}, DType::float32, device());
    Tensor used = Tensor::from(std::vector<float>(999, 7), {999}, device());
    const void* block = used.raw();
    cudaDeviceSynchronize();
    copy_there(used, seen);
    if (told) used.use_on(communication());
    used = {};
    const Tensor next = Tensor::zeros({999}, DType::float32, device());
    EXPECT_EQ(next.raw() == block, !told);
    next.to_host<float>();  // the stream that computes is through
    cudaStreamSynchronize(communication());
    if (told) {
      EXPECT_EQ(seen.to_host<float>()[998], 7);
    } else {
      EXPECT_EQ(seen.to_host<float>()[998], 0) << "the next user's zeros, where nobody was told";
    }
  }
  // Once the other stream is through, the block is handed on.
  Tensor used = new_tensor(12345);
  const void* block = used.raw();
  used.use_on(communication());
  used = {};
  cudaStreamSynchronize(communication());
  EXPECT_EQ(new_tensor(12345).raw(), block);
}

TEST_F(Streams, PinnedMemoryIsReadWhenTheCopyRuns) {
  void* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 4), cudaSuccess);
  float pageable = 1;
  const Tensor of_pinned = new_tensor(1), of_pageable = new_tensor(1);
  const auto stream = static_cast<cudaStream_t>(device().stream());
  const float one = 1, two = 2;
  std::memcpy(pinned, &one, 4);
  cudaMemcpyAsync(of_pinned.raw(), pinned, 4, cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(of_pageable.raw(), &pageable, 4, cudaMemcpyHostToDevice, stream);
  std::memcpy(pinned, &two, 4);
  pageable = 2;
  EXPECT_EQ(of_pinned.to_host<float>()[0], 2) << "written over before the copy was waited for";
  EXPECT_EQ(of_pageable.to_host<float>()[0], 1);
  cudaFreeHost(pinned);
}

// More than the device has blocks of pinned memory for: then the host waits, once for each that is too many
// and only for the oldest, which is seen and counted.
TEST_F(Streams, ManyCopiesToTheDeviceKeepTheirValuesAndWaitForABlockAlone) {
  struct Case {
    std::int64_t elements, copies, waits;
  };
  for (const Case& of : {Case{1, 50, 0}, Case{4097, 50, 0}, Case{1 << 18, 16, 0}, Case{1 << 18, 19, 3}}) {
    cudaDeviceSynchronize();
    std::vector<Tensor> tensors;
    const std::int64_t before = device().host_waits();
    for (std::int64_t i = 0; i < of.copies; ++i)
      tensors.push_back(
          Tensor::from(std::vector<float>(static_cast<std::size_t>(of.elements), static_cast<float>(i)),
                       {of.elements}, device()));
    EXPECT_EQ(device().host_waits() - before, of.waits) << of.copies << " of " << of.elements;
    EXPECT_FALSE(device().record(device().stream())->passed()) << "the stream is not through";
    for (std::size_t i = 0; i < tensors.size(); ++i)
      EXPECT_EQ(tensors[i].to_host<float>().back(), static_cast<float>(i));
  }
}

// Larger than the largest block.
TEST_F(Streams, ALargeCopyToTheDeviceGoesInPieces) {
  std::vector<float> values((5 << 20) + 3);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const auto elements = static_cast<std::int64_t>(values.size());
  cudaDeviceSynchronize();
  const std::int64_t before = device().host_waits();
  const Tensor large = Tensor::from(values, {elements}, device());
  EXPECT_EQ(device().host_waits() - before, 1) << "20 MiB over four blocks of 4 MiB, and 12 bytes";
  values.assign(values.size(), 0);
  const std::vector<float> back = large.to_host<float>();
  for (std::size_t i = 0; i < back.size(); i += 999) ASSERT_EQ(back[i], static_cast<float>(i));
  EXPECT_EQ(back.back(), static_cast<float>(back.size() - 1));
}

// Where work never ends, whoever watches is the one to say so: before a copy to pageable memory as well,
// which could not be asked while it is under way, and while pinned memory is waited for.
TEST_F(Streams, EveryWaitOfTheHostIsWatched) {
  const Tensor small = Tensor::zeros({8}, DType::float32, device()),
               large = Tensor::zeros({1 << 16}, DType::float32, device());
  cudaDeviceSynchronize();
  bool done = false;
  int watched = 0, watched_before_its_end = 0;
  device().watch_waiting([&] {
    ++watched;
    watched_before_its_end += done ? 0 : 1;
  });
  const auto begin = [&] {
    watched = watched_before_its_end = 0;
    done = false;
    run_on(static_cast<cudaStream_t>(device().stream()), "", [&] { done = true; });
  };
  for (const Tensor& tensor : {small, large}) {
    begin();
    tensor.to_host<float>();
    EXPECT_GT(watched_before_its_end, 0) << tensor.elements();
    EXPECT_GT(watched, watched_before_its_end) << "once after it, too";
  }
  begin();
  std::vector<Tensor> tensors;
  const std::int64_t before = device().host_waits();
  while (device().host_waits() == before && tensors.size() < 1000)
    tensors.push_back(Tensor::from(std::vector<float>(1 << 18, 1), {1 << 18}, device()));
  EXPECT_EQ(tensors.size(), 17u);
  EXPECT_GT(watched_before_its_end, 0);
  device().watch_waiting({});
}

TEST(MemoryUse, IsCountedByPurpose) {
  for (Device* device : {&cpu_device(), &emulated_device()}) {
    const MemoryUse before = device->memory_use();
    {
      const Tensor values = Tensor::zeros({1 << 18}, DType::float32, *device, MemoryPurpose::parameters);
      const MemoryUse use = device->memory_use();
      EXPECT_EQ(use[MemoryPurpose::parameters].live, before[MemoryPurpose::parameters].live + (1u << 20));
      EXPECT_EQ(use[MemoryPurpose::activations].live, before[MemoryPurpose::activations].live);
    }
    const MemoryUse after = device->memory_use();
    EXPECT_EQ(after[MemoryPurpose::parameters].live, before[MemoryPurpose::parameters].live);
    EXPECT_GE(after[MemoryPurpose::parameters].peak, 1u << 20);
  }
}

}  // namespace
}  // namespace conclave::emulated
