// DeviceCollectives moves tensors in a device's memory between the ranks of a communicator (by NCCL, or its
// stand-in). The tensors move in the order of the device, and the host does not wait. It is a part of the
// communicator over MPI, which counts, notes and checks. Tensors in host memory never come here.
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

  /// Each collective starts when the device's own stream has done what is queued there now, and runs on its
  /// communication stream. Pending::wait() makes the device's own stream wait, not the host. Shapes have been
  /// checked, and meanings are those of Communicator.
  using Pending = std::unique_ptr<Request::Pending>;
  virtual Pending all_reduce(const Tensor& tensor, ReduceOp op) = 0;
  virtual Pending all_gather_rows(const Tensor& in, const Tensor& out) = 0;
  virtual Pending reduce_scatter_rows(const Tensor& in, const Tensor& out) = 0;
  virtual Pending all_to_all_rows(const Tensor& in, const RowCounts& send_rows, const Tensor& out,
                                  const RowCounts& receive_rows) = 0;
  virtual Pending broadcast(const Tensor& tensor, int root) = 0;
};

/// A MeetingPlace says how the ranks that will communicate meet.
struct MeetingPlace {
  int rank, size;
  std::string where;  // "communicator world, rank 0 of 2"
  /// Gives rank 0's bytes to all ranks. Collective.
  std::function<void(void* data, std::size_t bytes)> share;
};

/// Makes collectives over the device of the tensors that will come. Throws Fault::machine in a build without
/// NCCL for it. Collective.
std::unique_ptr<DeviceCollectives> device_collectives(Device& device, const MeetingPlace& place);

/// Makes every collective of this process that hangs on a device give up, for a process that is about to end.
/// It may be called from any thread, and takes a few seconds at most.
void abort_device_collectives();

}  // namespace conclave
