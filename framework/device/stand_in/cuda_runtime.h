// The part of the CUDA runtime that Conclave calls, for the emulated device: the same names and meanings, on
// the host. Its memory is closed to the host between calls (emulated_memory.h). A pointer of the wrong side
// is an Error. Streams run eagerly or, for tests, as late as a program can possibly notice. Code that forgot
// to wait for an event then reads the older contents every time. The rest of CUDA is left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/device/device.h"

#define DIALECT emulated

namespace conclave::emulated {

constexpr DeviceKind device_kind = DeviceKind::emulated;
constexpr const char* device_name = "emulated";

// --- CUDA's names

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

struct StreamOfWork;
struct PointInStream;
using cudaStream_t = StreamOfWork*;  // null: work that is done at return
using cudaEvent_t = PointInStream*;

struct cudaUUID_t {
  char bytes[16];
};
struct cudaDeviceProp {
  char name[256];
  cudaUUID_t uuid;  // zero: as many devices as processes
  int major, minor;
};

const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetLastError();
/// There are as many devices as any test has ranks; memory is a process' own anyway.
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);

cudaError_t cudaMalloc(void** block, std::size_t bytes);
cudaError_t cudaFree(void* block);
/// Pinned host memory is read and written by copies when they run, other host memory when they are called.
cudaError_t cudaMallocHost(void** block, std::size_t bytes);
cudaError_t cudaFreeHost(void* block);

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
/// Where streams are deferred, many queries hear no before one makes it true.
cudaError_t cudaEventQuery(cudaEvent_t event);

// --- for the other stand-ins

/// Puts a piece of work at the end of the stream, with device memory open while it runs. `what` names it in
/// the history.
void run_on(cudaStream_t stream, const char* what, std::function<void()> work);

/// A buffer's new memory holds no numbers, and memory outside buffers may not be touched. Both take effect in
/// the stream's order.
void begin_buffer(void* block, std::size_t bytes, cudaStream_t stream);
void end_buffer(void* block, std::size_t bytes, cudaStream_t stream);

// --- for tests

/// eager: work is done at return.
/// deferred: work runs once something waits for it, and no sooner. The host may wait for a stream, an event
/// or a value, and another stream's own work for an event. A reader that should have waited for work and did
/// not then comes too early.
/// racing: as deferred, but every second stream (the one of communication) runs at once whatever it may. Its
/// work that should have waited for another stream then comes too early.
/// Deferred work of several ranks is safe as long as all of them wait at the same places of the program.
/// Otherwise one rank could wait inside a collective for a second one, which waits for the first in an MPI
/// call. A GPU would have gone on by itself there. Eager and racing collectives begin where they are issued,
/// and so always meet.
enum class StreamMode { eager, deferred, racing };
/// Runs the queued work before it sets the mode.
void set_stream_mode(StreamMode mode);

/// The work that ran since the last call, in the order it ran, as "RANGE: what"; RANGE is the NamedRange in
/// which it was queued. It is kept only since the first call.
std::vector<std::string> take_history();

}  // namespace conclave::emulated
