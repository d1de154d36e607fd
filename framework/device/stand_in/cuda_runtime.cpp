#include "framework/device/stand_in/cuda_runtime.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "framework/base/error.h"
#include "framework/device/emulated_memory.h"
#include "framework/device/named_range.h"
#include "framework/device/sanitizer.h"

namespace conclave::emulated {

struct StreamOfWork {
  struct Work {
    std::string name;
    std::function<void()> run;
  };
  std::deque<Work> queue;
  std::uint64_t queued = 0, done = 0;
  bool running = false;
  bool second = false;  // what runs at once when streams race
};

/// After the first `count` pieces of work of a stream.
struct PointInStream {
  cudaStream_t stream = nullptr;
  std::uint64_t count = 0;
  int asked = 0;
};

namespace {

constexpr int no_number =
    0xFF;  // this byte over and over is NaN in every floating-point type, and -1 in integers

constexpr int patient_questions = 100;

/// All streams of the process. Work runs on the thread that waits for it.
struct Runtime {
  std::recursive_mutex mutex;
  StreamMode mode = StreamMode::eager;
  std::vector<std::unique_ptr<StreamOfWork>> streams;
  std::map<const std::byte*, std::size_t> pinned;
  bool keeps_history = false;
  std::vector<std::string> history;
  cudaError_t last_error = cudaSuccess;
};

Runtime& runtime() {
  // Never destroyed: buffers in other statics may outlive any order of destruction.
  static Runtime* runtime = new Runtime;
  return *runtime;
}

cudaError_t noted(cudaError_t status) {
  if (status != cudaSuccess) runtime().last_error = status;
  return status;
}

void run_next(StreamOfWork& stream) {
  const StreamOfWork::Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  check(!stream.running, "emulated: a piece of work waits for its own stream: ", work.name);
  stream.running = true;
  const auto leave = [&stream] {
    stream.running = false;
    ++stream.done;
  };
  try {
    const EmulatedAccess access;
    work.run();
  } catch (...) {
    leave();
    throw;
  }
  leave();
  if (runtime().keeps_history && !work.name.empty()) runtime().history.push_back(work.name);
}

void run_until(StreamOfWork& stream, std::uint64_t count) {
  while (stream.done < count) run_next(stream);
}

bool is_pinned(const void* data, std::size_t bytes) {
  const auto* begin = static_cast<const std::byte*>(data);
  const auto& pinned = runtime().pinned;
  auto block = pinned.upper_bound(begin);
  if (block == pinned.begin()) return false;
  --block;
  return begin + bytes <= block->first + block->second;
}

enum class Place { host, device };

void check_place(const char* where, const char* which, const void* begin, std::size_t bytes, Place expected) {
  const Place place = is_emulated_memory(begin, bytes) ? Place::device : Place::host;
  check(place == expected, "emulated: ", where, ": the ", which, " lies in the memory of the ",
        place == Place::host ? "host" : "device", ", expected the other");
}

}  // namespace

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNotReady:
      return "device not ready";
  }
  return "unknown error";
}

cudaError_t cudaGetLastError() {
  return std::exchange(runtime().last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 64;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {.name = "emulated", .uuid = {}, .major = 8, .minor = 0};
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** block, std::size_t bytes) {
  const EmulatedAccess access;
  *block = new_emulated_block(bytes);
  return noted(*block == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaFree(void*) {
  return cudaDeviceSynchronize();  // addresses are never given out again
}

cudaError_t cudaMallocHost(void** block, std::size_t bytes) {
  const std::lock_guard lock(runtime().mutex);
  *block = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (*block == nullptr) return noted(cudaErrorMemoryAllocation);
  runtime().pinned[static_cast<const std::byte*>(*block)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* block) {
  const std::lock_guard lock(runtime().mutex);
  cudaDeviceSynchronize();
  runtime().pinned.erase(static_cast<const std::byte*>(block));
  std::free(block);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const std::lock_guard lock(runtime().mutex);
  const bool to_host = kind == cudaMemcpyDeviceToHost, from_host = kind == cudaMemcpyHostToDevice;
  const char* name = to_host     ? "cudaMemcpyAsync to the host"
                     : from_host ? "cudaMemcpyAsync to the device"
                                 : "cudaMemcpyAsync on the device";
  check_place(name, "target", to, bytes, to_host ? Place::host : Place::device);
  check_place(name, "source", from, bytes, from_host ? Place::host : Place::device);
  if (from_host && !is_pinned(from, bytes)) {
    const auto* begin = static_cast<const std::byte*>(from);
    run_on(stream, name, [to, taken = std::vector<std::byte>(begin, begin + bytes)] {
      std::memcpy(to, taken.data(), taken.size());
    });
    return cudaSuccess;
  }
  run_on(stream, name, [to, from, bytes] { std::memcpy(to, from, bytes); });
  return to_host && !is_pinned(to, bytes) ? cudaStreamSynchronize(stream) : cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  check_place("cudaMemsetAsync", "target", data, bytes, Place::device);
  run_on(stream, "cudaMemsetAsync", [data, value, bytes] { std::memset(data, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(runtime().mutex);
  auto& streams = runtime().streams;
  *stream = streams.emplace_back(std::make_unique<StreamOfWork>()).get();
  (*stream)->second = streams.size() % 2 == 0;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(runtime().mutex);
  if (stream != nullptr) run_until(*stream, stream->queued);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(runtime().mutex);
  const PointInStream point = *event;  // as it is now: it may be recorded again
  if (point.stream != nullptr && point.stream != stream)
    run_on(stream, "", [point] { run_until(*point.stream, point.count); });
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard lock(runtime().mutex);
  for (const auto& stream : runtime().streams) run_until(*stream, stream->queued);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new PointInStream;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(runtime().mutex);
  *event = {stream, stream != nullptr ? stream->queued : 0};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(runtime().mutex);
  if (event->stream != nullptr) run_until(*event->stream, event->count);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(runtime().mutex);
  if (event->stream == nullptr || event->stream->done >= event->count) return cudaSuccess;
  if (event->asked++ < patient_questions) return cudaErrorNotReady;
  run_until(*event->stream, event->count);
  return cudaSuccess;
}

void run_on(cudaStream_t stream, const char* what, std::function<void()> work) {
  const std::lock_guard lock(runtime().mutex);
  StreamOfWork now;  // of a null stream
  StreamOfWork& target = stream != nullptr ? *stream : now;
  std::string name = what;
  if (!name.empty() && current_range() != nullptr) name = std::string(current_range()) + ": " + name;
  target.queue.push_back({std::move(name), std::move(work)});
  ++target.queued;
  const StreamMode mode = runtime().mode;
  if (mode == StreamMode::eager || (mode == StreamMode::racing && target.second) || stream == nullptr)
    run_until(target, target.queued);
}

void begin_buffer(void* block, std::size_t bytes, cudaStream_t stream) {
  run_on(stream, "", [block, bytes] {
    sanitizer::allow(block, bytes);
    if (bytes > 0) std::memset(block, no_number, bytes);
  });
}

void end_buffer(void* block, std::size_t bytes, cudaStream_t stream) {
  run_on(stream, "", [block, bytes] { sanitizer::forbid(block, bytes); });
}

void set_stream_mode(StreamMode mode) {
  const std::lock_guard lock(runtime().mutex);
  cudaDeviceSynchronize();
  runtime().mode = mode;
}

std::vector<std::string> take_history() {
  const std::lock_guard lock(runtime().mutex);
  runtime().keeps_history = true;
  return std::exchange(runtime().history, {});
}

}  // namespace conclave::emulated
