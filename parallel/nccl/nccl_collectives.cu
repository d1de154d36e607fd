// Collectives over NCCL, on the communication stream of the device, with events between it and the stream
// that computes. All communicators of a process share that one stream, so that every rank runs its
// collectives in the order in which it issued them, and no two wait for each other crosswise.
#include <exception>
#include <map>
#include <mutex>
#include <string>

#include "parallel/nccl/nccl_collectives.h"
#include "parallel/nccl/nccl_runtime.h"

namespace conclave::DIALECT {
namespace {

void check_nccl(ncclResult_t result, const char* call, const std::string& where, ncclComm_t comm = nullptr) {
  if (result == ncclSuccess) return;
  const std::string more = ncclGetLastError(comm);
  fail(Fault::machine, "nccl: ", call, " failed on ", where, ": ", ncclGetErrorString(result),
       more.empty() ? "" : ", ", more);
}

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return ncclFloat32;
    case DType::float64:
      return ncclFloat64;
    case DType::int32:
      return ncclInt32;
    case DType::int64:
      return ncclInt64;
    case DType::bfloat16:
      return ncclBfloat16;
  }
  fail(Fault::internal, "nccl: a tensor of unknown type came");
}

ncclRedOp_t nccl_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return ncclSum;
    case ReduceOp::maximum:
      return ncclMax;
    case ReduceOp::minimum:
      return ncclMin;
  }
  fail(Fault::internal, "nccl: an unknown reduction came");
}

/// Every communicator of the process that may have to be aborted, and where it is.
struct LiveCommunicators {
  std::mutex mutex;
  std::map<ncclComm_t, std::string> places;
};
LiveCommunicators& live() {
  static auto* live = new LiveCommunicators;
  return *live;
}

/// Says what went wrong on the device or the network since, in a collective that had been started well.
void check_asynchronous(ncclComm_t communicator, const std::string& where) {
  ncclResult_t result = ncclSuccess;
  check_nccl(ncclCommGetAsyncError(communicator, &result), "ncclCommGetAsyncError", where, communicator);
  if (result != ncclInProgress) check_nccl(result, "a collective under way", where, communicator);
}

void check_all_asynchronous() {
  const std::lock_guard lock(live().mutex);
  for (const auto& [communicator, where] : live().places) check_asynchronous(communicator, where);
}

class NcclCollectives final : public DeviceCollectives {
 public:
  NcclCollectives(Device& device, const MeetingPlace& place) : device_(device), where_(place.where) {
    ncclUniqueId id{};
    if (place.rank == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId", where_);
    place.share(&id, sizeof id);
    check_nccl(ncclCommInitRank(&ranks_, place.size, id, place.rank), "ncclCommInitRank", where_);
    const std::lock_guard lock(live().mutex);
    live().places[ranks_] = where_;
    device_.watch_waiting(check_all_asynchronous);
  }

  ~NcclCollectives() override {
    const std::lock_guard lock(live().mutex);
    if (live().places.erase(ranks_) == 0) return;  // aborted
    // While an error unwinds, the partners may never come to what is queued.
    if (std::uncaught_exceptions() > 0)
      ncclCommAbort(ranks_);
    else
      ncclCommDestroy(ranks_);
  }

  Pending all_reduce(const Tensor& tensor, ReduceOp op) override {
    return start(tensor, tensor, [&](cudaStream_t stream) {
      check("ncclAllReduce", ncclAllReduce(tensor.raw(), tensor.raw(), elements(tensor),
                                           nccl_type(tensor.dtype()), nccl_op(op), ranks_, stream));
    });
  }

  Pending all_gather_rows(const Tensor& in, const Tensor& out) override {
    return start(in, out, [&](cudaStream_t stream) {
      check("ncclAllGather",
            ncclAllGather(in.raw(), out.raw(), elements(in), nccl_type(in.dtype()), ranks_, stream));
    });
  }

  Pending reduce_scatter_rows(const Tensor& in, const Tensor& out) override {
    return start(in, out, [&](cudaStream_t stream) {
      check("ncclReduceScatter", ncclReduceScatter(in.raw(), out.raw(), elements(out), nccl_type(in.dtype()),
                                                   ncclSum, ranks_, stream));
    });
  }

  Pending all_to_all_rows(const Tensor& in, const RowCounts& send_rows, const Tensor& out,
                          const RowCounts& receive_rows) override {
    return start(in, out, [&](cudaStream_t stream) {
      const std::int64_t width = in.shape().row_elements();
      const ncclDataType_t type = nccl_type(in.dtype());
      std::int64_t sent = 0, received = 0;
      check("ncclGroupStart", ncclGroupStart());
      for (std::size_t peer = 0; peer < send_rows.size(); ++peer) {
        const std::int64_t sends = send_rows[peer] * width, receives = receive_rows[peer] * width;
        // Both sides of a pair know that there is nothing.
        if (sends > 0)
          check("ncclSend", ncclSend(at(in, sent), static_cast<std::size_t>(sends), type,
                                     static_cast<int>(peer), ranks_, stream));
        if (receives > 0)
          check("ncclRecv", ncclRecv(at(out, received), static_cast<std::size_t>(receives), type,
                                     static_cast<int>(peer), ranks_, stream));
        sent += sends;
        received += receives;
      }
      check("ncclGroupEnd", ncclGroupEnd());
    });
  }

  Pending broadcast(const Tensor& tensor, int root) override {
    return start(tensor, tensor, [&](cudaStream_t stream) {
      check("ncclBroadcast", ncclBroadcast(tensor.raw(), tensor.raw(), elements(tensor),
                                           nccl_type(tensor.dtype()), root, ranks_, stream));
    });
  }

 private:
  /// Keeps its tensors until the stream that computes knows of its end.
  struct OnStream final : Request::Pending {
    OnStream(NcclCollectives& owner, Tensor first, Tensor second)
        : collectives(owner), in(std::move(first)), out(std::move(second)) {}
    bool test() override {
      collectives.check_asynchronous();
      return end->passed();
    }
    void wait() override {
      collectives.check_asynchronous();
      collectives.device_.wait_on(collectives.device_.stream(), end);
    }
    NcclCollectives& collectives;
    Tensor in, out;
    std::shared_ptr<Event> end;
  };

  template <class Calls>
  Pending start(const Tensor& in, const Tensor& out, Calls&& calls) {
    check_asynchronous();
    void* stream = device_.communication_stream();
    auto pending = std::make_unique<OnStream>(*this, in, out);
    device_.wait_on(stream, device_.record(device_.stream()));
    if (in.elements() + out.elements() > 0) calls(static_cast<cudaStream_t>(stream));
    pending->end = device_.record(stream);
    return pending;
  }

  static std::size_t elements(const Tensor& tensor) { return static_cast<std::size_t>(tensor.elements()); }
  static void* at(const Tensor& tensor, std::int64_t element) {
    return static_cast<std::byte*>(tensor.raw()) +
           static_cast<std::size_t>(element) * element_bytes(tensor.dtype());
  }
  void check(const char* call, ncclResult_t result) { check_nccl(result, call, where_, ranks_); }
  void check_asynchronous() { DIALECT::check_asynchronous(ranks_, where_); }

  Device& device_;
  std::string where_;
  ncclComm_t ranks_ = nullptr;
};

}  // namespace

std::unique_ptr<DeviceCollectives> nccl_collectives(Device& device, const MeetingPlace& place) {
  return std::make_unique<NcclCollectives>(device, place);
}

void abort_nccl() {
  const std::lock_guard lock(live().mutex);
  for (const auto& [communicator, where] : live().places) ncclCommAbort(communicator);
  live().places.clear();
}

}  // namespace conclave::DIALECT
