// DeviceCollectives: what moves tensors in a device's memory between the ranks of a communicator, in the
// order of the device and without the host waiting (NCCL, or its stand-in). A part of the communicator over
// MPI, which counts, notes and checks; tensors in host memory never come here.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace conclave {

class DeviceCollectives {
 public:
  virtual ~DeviceCollectives() = default;

  /// Each starts when the device's own stream has done what is queued there now, and runs on its
  /// communication stream. Pending::wait() makes the device's own stream wait, not the host. Shapes have been
  /// checked; meanings are those of Communicator.
  using Pending = std::unique_ptr<Request::Pending>;
  virtual Pending all_reduce(const Tensor& tensor, ReduceOp op) = 0;
  virtual Pending all_gather_rows(const Tensor& in, const Tensor& out) = 0;
  virtual Pending reduce_scatter_rows(const Tensor& in, const Tensor& out) = 0;
  virtual Pending all_to_all_rows(const Tensor& in, const RowCounts& send_rows, const Tensor& out,
                                  const RowCounts& receive_rows) = 0;
  virtual Pending broadcast(const Tensor& tensor, int root) = 0;
};

/// How the ranks that will communicate meet.
struct MeetingPlace {
  int rank, size;
  std::string where;  // "communicator world, rank 0 of 2"
  /// Rank 0's bytes to all. Collective.
  std::function<void(void* data, std::size_t bytes)> share;
};

/// Over the device of the tensors that will come. Collective. Fault::machine in a build without NCCL for it.
std::unique_ptr<DeviceCollectives> device_collectives(Device& device, const MeetingPlace& place);

/// Makes every collective of this process that hangs on a device give up, for a process that is about to end:
/// from any thread, in a few seconds at most.
void abort_device_collectives();

}  // namespace conclave
