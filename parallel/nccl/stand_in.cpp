#include "parallel/nccl/stand_in.h"

#include <atomic>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/mpi.h"

namespace conclave::emulated {

struct StandInComm {
  MPI_Comm ranks = MPI_COMM_NULL;
  int rank = 0, size = 0;
  std::atomic<bool> aborted{false};
  std::atomic<ncclResult_t> failure{ncclSuccess};
};

namespace {

constexpr int first_tag = 20000, tags = 10000;  // of MPI_COMM_WORLD, which nobody else sends over

std::atomic<ncclResult_t> planted{ncclSuccess};

/// An id says where the ranks that bring it meet.
struct Meeting {
  int root;  // in MPI_COMM_WORLD
  int number;
};

MPI_Datatype mpi_type(ncclDataType_t type) {
  switch (type) {
    case ncclInt32:
      return MPI_INT32_T;
    case ncclInt64:
      return MPI_INT64_T;
    case ncclFloat32:
      return MPI_FLOAT;
    case ncclFloat64:
      return MPI_DOUBLE;
    case ncclBfloat16:
      return MPI_UINT16_T;  // moved, never added up
  }
  return MPI_DATATYPE_NULL;
}

std::size_t bytes_of(ncclDataType_t type) {
  if (type == ncclBfloat16) return 2;
  return type == ncclInt32 || type == ncclFloat32 ? 4 : 8;
}

MPI_Op mpi_op(ncclRedOp_t op) {
  return op == ncclSum ? MPI_SUM : op == ncclMax ? MPI_MAX : MPI_MIN;
}

/// Starts MPI calls and waits for all of them, unless the communicator is aborted meanwhile: then they are
/// left to the end of the process.
void carry_out(StandInComm& comm, const std::function<int(std::vector<MPI_Request>&)>& start) {
  if (const ncclResult_t result = planted.exchange(ncclSuccess); result != ncclSuccess) {
    comm.failure = result;
    return;
  }
  if (comm.aborted || comm.failure != ncclSuccess) return;
  std::vector<MPI_Request> requests;
  int code = start(requests), done = 0;
  while (code == MPI_SUCCESS && !done && !comm.aborted) {
    code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
    if (!done) std::this_thread::yield();
  }
  if (code != MPI_SUCCESS) comm.failure = ncclSystemError;
}

/// One MPI call as a piece of the stream's work.
template <class Call>
ncclResult_t queue(const char* what, std::size_t count, ncclComm_t comm, cudaStream_t stream, Call&& call) {
  if (count * static_cast<std::size_t>(comm->size) > std::numeric_limits<int>::max())
    return ncclInvalidArgument;
  run_on(stream, what, [comm, call = std::forward<Call>(call)] {
    carry_out(*comm, [&](std::vector<MPI_Request>& requests) {
      requests.push_back(MPI_REQUEST_NULL);
      return call(&requests.back());
    });
  });
  return ncclSuccess;
}

struct PointToPoint {
  bool sends;
  void* data;
  std::size_t count;
  MPI_Datatype type;
  int peer;
};
/// The calls of the group that this thread has begun.
struct Group {
  int depth = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<PointToPoint> calls;
};
thread_local Group group;

ncclResult_t join_group(const PointToPoint& call, ncclComm_t comm, cudaStream_t stream) {
  if (group.depth == 0) return ncclInvalidUsage;
  if (group.comm != nullptr && (group.comm != comm || group.stream != stream)) return ncclInvalidUsage;
  if (call.peer < 0 || call.peer >= comm->size || call.count > std::numeric_limits<int>::max())
    return ncclInvalidArgument;
  group.comm = comm;
  group.stream = stream;
  group.calls.push_back(call);
  return ncclSuccess;
}

}  // namespace

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "internal error";
  }
}

const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int number = 0;
  Meeting meeting{0, number++};
  MPI_Comm_rank(MPI_COMM_WORLD, &meeting.root);
  std::memset(id, 0, sizeof *id);
  std::memcpy(id, &meeting, sizeof meeting);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  Meeting meeting;
  std::memcpy(&meeting, &id, sizeof meeting);
  const int tag = first_tag + meeting.number % tags;
  int self = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &self);
  // The root hears from everybody who they are, and tells everybody.
  std::vector<int> members(static_cast<std::size_t>(ranks));
  if (self == meeting.root) {
    members[static_cast<std::size_t>(rank)] = self;
    for (int others = 1; others < ranks; ++others) {
      int who[2];
      MPI_Recv(who, 2, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      members[static_cast<std::size_t>(who[0])] = who[1];
    }
    for (const int member : members)
      if (member != self) MPI_Send(members.data(), ranks, MPI_INT, member, tag, MPI_COMM_WORLD);
  } else {
    const int who[2] = {rank, self};
    MPI_Send(who, 2, MPI_INT, meeting.root, tag, MPI_COMM_WORLD);
    MPI_Recv(members.data(), ranks, MPI_INT, meeting.root, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
  MPI_Group job = MPI_GROUP_NULL, here = MPI_GROUP_NULL;
  MPI_Comm_group(MPI_COMM_WORLD, &job);
  MPI_Group_incl(job, ranks, members.data(), &here);
  auto* made = new StandInComm;
  made->rank = rank;
  made->size = ranks;
  const int code = MPI_Comm_create_group(MPI_COMM_WORLD, here, tag, &made->ranks);
  MPI_Group_free(&here);
  MPI_Group_free(&job);
  *comm = made;
  if (code != MPI_SUCCESS) return ncclSystemError;
  MPI_Comm_set_errhandler(made->ranks, MPI_ERRORS_RETURN);
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  cudaDeviceSynchronize();
  int ended = 0;
  MPI_Finalized(&ended);
  if (!ended) MPI_Comm_free(&comm->ranks);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->aborted = true;  // and never freed: work that is queued still looks here
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  *result = comm->failure;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group.depth == 0) return ncclInvalidUsage;
  if (--group.depth > 0) return ncclSuccess;
  const Group ended = std::exchange(group, {});
  if (ended.calls.empty()) return ncclSuccess;
  run_on(ended.stream, "ncclSend and ncclRecv", [ended] {
    carry_out(*ended.comm, [&](std::vector<MPI_Request>& requests) {
      int code = MPI_SUCCESS;
      for (const PointToPoint& call : ended.calls) {
        requests.push_back(MPI_REQUEST_NULL);
        const int count = static_cast<int>(call.count);
        const int one =
            call.sends
                ? MPI_Isend(call.data, count, call.type, call.peer, 0, ended.comm->ranks, &requests.back())
                : MPI_Irecv(call.data, count, call.type, call.peer, 0, ended.comm->ranks, &requests.back());
        if (one != MPI_SUCCESS) code = one;
      }
      return code;
    });
  });
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* in, void* out, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  if (type == ncclBfloat16) return ncclInvalidArgument;
  return queue("ncclAllReduce", count, comm, stream, [=](MPI_Request* request) {
    return MPI_Iallreduce(in == out ? MPI_IN_PLACE : in, out, static_cast<int>(count), mpi_type(type),
                          mpi_op(op), comm->ranks, request);
  });
}

ncclResult_t ncclAllGather(const void* in, void* out, std::size_t count_in, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  const auto own = static_cast<std::size_t>(comm->rank) * count_in * bytes_of(type);
  const void* from = in == static_cast<std::byte*>(out) + own ? MPI_IN_PLACE : in;
  return queue("ncclAllGather", count_in, comm, stream, [=](MPI_Request* request) {
    const int count = static_cast<int>(count_in);
    return MPI_Iallgather(from, count, mpi_type(type), out, count, mpi_type(type), comm->ranks, request);
  });
}

ncclResult_t ncclReduceScatter(const void* in, void* out, std::size_t count_out, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  if (type == ncclBfloat16) return ncclInvalidArgument;
  return queue("ncclReduceScatter", count_out, comm, stream, [=](MPI_Request* request) {
    return MPI_Ireduce_scatter_block(in, out, static_cast<int>(count_out), mpi_type(type), mpi_op(op),
                                     comm->ranks, request);
  });
}

ncclResult_t ncclBroadcast(const void* in, void* out, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  if (in != out) return ncclInvalidArgument;  // in place is all that is asked for
  return queue("ncclBroadcast", count, comm, stream, [=](MPI_Request* request) {
    return MPI_Ibcast(out, static_cast<int>(count), mpi_type(type), root, comm->ranks, request);
  });
}

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return join_group({true, const_cast<void*>(data), count, mpi_type(type), peer}, comm, stream);
}

ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return join_group({false, data, count, mpi_type(type), peer}, comm, stream);
}

void plant_nccl_failure(ncclResult_t result) {
  planted = result;
}

}  // namespace conclave::emulated
