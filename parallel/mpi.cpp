// Communicators over MPI. Starting and ending MPI stands in mpi_environment.cpp.
#include "parallel/mpi.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "parallel/device_collectives.h"

namespace conclave {
namespace {

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return MPI_FLOAT;
    case DType::float64:
      return MPI_DOUBLE;
    case DType::int32:
      return MPI_INT32_T;
    case DType::int64:
      return MPI_INT64_T;
    case DType::bfloat16:
      return MPI_UINT16_T;  // moved, never added up
  }
  return MPI_DATATYPE_NULL;
}

MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return MPI_SUM;
    case ReduceOp::maximum:
      return MPI_MAX;
    case ReduceOp::minimum:
      return MPI_MIN;
  }
  return MPI_OP_NULL;
}

/// `count` elements as one MPI type, for counts beyond an int and for rows.
class BlockType {
 public:
  BlockType(std::int64_t count, DType dtype, std::int64_t largest_count, const std::string& where) {
    const std::int64_t chunks = count / largest_count, rest = count % largest_count;
    check(chunks <= std::numeric_limits<int>::max(), "MPI: a block of ", count, " elements is too large on ",
          where);
    MPI_Datatype chunk = MPI_DATATYPE_NULL;
    check_mpi(MPI_Type_contiguous(static_cast<int>(largest_count), mpi_type(dtype), &chunk),
              "MPI_Type_contiguous", where);
    int lengths[2] = {static_cast<int>(chunks), static_cast<int>(rest)};
    const auto bytes = chunks * largest_count * static_cast<std::int64_t>(element_bytes(dtype));
    MPI_Aint displacements[2] = {0, static_cast<MPI_Aint>(bytes)};
    MPI_Datatype types[2] = {chunk, mpi_type(dtype)};
    const int code = chunks == 0 ? MPI_Type_contiguous(static_cast<int>(rest), mpi_type(dtype), &type_)
                                 : MPI_Type_create_struct(2, lengths, displacements, types, &type_);
    MPI_Type_free(&chunk);
    check_mpi(code, "MPI_Type_create_struct", where);
    check_mpi(MPI_Type_commit(&type_), "MPI_Type_commit", where);
  }
  ~BlockType() { MPI_Type_free(&type_); }
  BlockType(const BlockType&) = delete;
  BlockType& operator=(const BlockType&) = delete;
  MPI_Datatype get() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

/// Calls under way, and everything that MPI reads or writes until they are complete.
struct MpiPending final : Request::Pending {
  explicit MpiPending(std::string place) : where(std::move(place)) {}

  bool test() override {
    while (!requests.empty()) {
      int complete = 0;
      check_mpi(MPI_Test(&requests.back(), &complete, MPI_STATUS_IGNORE), "MPI_Test", where);
      if (!complete) return false;
      requests.pop_back();
    }
    return true;
  }
  void wait() override {
    while (!requests.empty()) {
      check_mpi(MPI_Wait(&requests.back(), MPI_STATUS_IGNORE), "MPI_Wait", where);
      requests.pop_back();
    }
  }

  std::string where;
  std::vector<MPI_Request> requests;
  Tensor in, out;
  std::vector<int> send_counts, send_begins, receive_counts, receive_begins;
  std::unique_ptr<BlockType> row;
};

class MpiCommunicator final : public Communicator {
 public:
  /// Takes over `ranks`, whose errors it wants returned.
  MpiCommunicator(MPI_Comm ranks, int rank, int size, const std::string& name,
                  std::shared_ptr<TrafficTable> traffic, MpiOptions options)
      : Communicator(rank, size, name, std::move(traffic)),
        ranks_(ranks),
        options_(options),
        where_(join_text("communicator ", name, ", rank ", rank, " of ", size)) {
    set_members(ranks_in_job());
  }
  ~MpiCommunicator() override {
    on_device_ = {};
    int ended = 0;
    MPI_Finalized(&ended);
    if (!ended) MPI_Comm_free(&ranks_);
  }

  std::shared_ptr<Communicator> split(const std::vector<int>& members, const std::string& part) override {
    const int place = place_in(members, part);
    MPI_Comm child = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(ranks_, members.front(), place, &child), "MPI_Comm_split", where_);
    int child_rank = 0, child_size = 0;
    MPI_Comm_rank(child, &child_rank);
    MPI_Comm_size(child, &child_size);
    check(child_rank == place && child_size == static_cast<int>(members.size()), "split: ", where_,
          " asked for ", part, " as rank ", place, " of ", members.size(), ", and is rank ", child_rank,
          " of ", child_size, "; the ranks named different sets");
    if (child_size == 1) {
      MPI_Comm_free(&child);
      return alone(part);
    }
    return std::make_shared<MpiCommunicator>(child, child_rank, child_size, part, traffic_table(), options_);
  }

  NodePlace node_place() override {
    MPI_Comm node = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(ranks_, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &node),
              "MPI_Comm_split_type", where_);
    NodePlace place;
    MPI_Comm_rank(node, &place.rank);
    MPI_Comm_size(node, &place.size);
    MPI_Comm_free(&node);
    return place;
  }

 protected:
  void run_all_reduce(const Tensor& tensor, ReduceOp op) override {
    if (!in_host_memory(tensor)) return on_device_of(tensor).all_reduce(tensor, op)->wait();
    in_chunks(tensor, [&](void* data, int count) {
      check_mpi(MPI_Allreduce(MPI_IN_PLACE, data, count, mpi_type(tensor.dtype()), mpi_op(op), ranks_),
                "MPI_Allreduce", where_);
    });
  }

  std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor& tensor, ReduceOp op) override {
    if (!in_host_memory(tensor)) return on_device_of(tensor).all_reduce(tensor, op);
    auto pending = std::make_unique<MpiPending>(where_);
    pending->out = tensor;
    in_chunks(tensor, [&](void* data, int count) {
      pending->requests.push_back(MPI_REQUEST_NULL);
      check_mpi(MPI_Iallreduce(MPI_IN_PLACE, data, count, mpi_type(tensor.dtype()), mpi_op(op), ranks_,
                               &pending->requests.back()),
                "MPI_Iallreduce", where_);
    });
    return pending;
  }

  void run_all_gather_rows(const Tensor& in, const Tensor& out) override {
    if (!in_host_memory(in, out)) return on_device_of(in).all_gather_rows(in, out)->wait();
    if (out.elements() == 0) return;
    const auto* own = static_cast<std::byte*>(out.raw()) + static_cast<std::size_t>(rank()) * in.bytes();
    const void* from = in.raw() == own ? MPI_IN_PLACE : in.raw();
    // MPI libraries multiply counts by ranks in an int, so the limit is on the whole.
    if (out.elements() <= options_.largest_count) {
      const int count = static_cast<int>(in.elements());
      const MPI_Datatype type = mpi_type(in.dtype());
      check_mpi(MPI_Allgather(from, count, type, out.raw(), count, type, ranks_), "MPI_Allgather", where_);
    } else {
      const BlockType block(in.elements(), in.dtype(), options_.largest_count, where_);
      check_mpi(MPI_Allgather(from, 1, block.get(), out.raw(), 1, block.get(), ranks_), "MPI_Allgather",
                where_);
    }
  }

  void run_reduce_scatter_rows(const Tensor& in, const Tensor& out) override {
    if (!in_host_memory(in, out)) return on_device_of(in).reduce_scatter_rows(in, out)->wait();
    if (in.elements() <= options_.largest_count) {
      check_mpi(MPI_Reduce_scatter_block(in.raw(), out.raw(), static_cast<int>(out.elements()),
                                         mpi_type(in.dtype()), MPI_SUM, ranks_),
                "MPI_Reduce_scatter_block", where_);
      return;
    }
    for (int root = 0; root < size(); ++root) {
      const Tensor share = in.part(root * out.elements(), {out.elements()});
      std::byte* to = static_cast<std::byte*>(out.raw());
      in_chunks(share, [&](void* data, int count) {
        check_mpi(MPI_Reduce(data, to, count, mpi_type(in.dtype()), MPI_SUM, root, ranks_), "MPI_Reduce",
                  where_);
        to += static_cast<std::size_t>(count) * element_bytes(in.dtype());
      });
    }
  }

  std::unique_ptr<Request::Pending> begin_reduce_scatter_rows(const Tensor& in, const Tensor& out) override {
    if (!in_host_memory(in, out)) return on_device_of(in).reduce_scatter_rows(in, out);
    if (in.elements() > options_.largest_count) {
      run_reduce_scatter_rows(in, out);
      return nullptr;
    }
    auto pending = std::make_unique<MpiPending>(where_);
    pending->in = in;
    pending->out = out;
    pending->requests.push_back(MPI_REQUEST_NULL);
    check_mpi(MPI_Ireduce_scatter_block(in.raw(), out.raw(), static_cast<int>(out.elements()),
                                        mpi_type(in.dtype()), MPI_SUM, ranks_, &pending->requests.back()),
              "MPI_Ireduce_scatter_block", where_);
    return pending;
  }

  std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor& in, const RowCounts& send_rows,
                                                          const Tensor& out,
                                                          const RowCounts& receive_rows) override {
    if (!in_host_memory(in, out)) return on_device_of(in).all_to_all_rows(in, send_rows, out, receive_rows);
    auto pending = std::make_unique<MpiPending>(where_);
    pending->in = in;
    pending->out = out;
    set_counts(send_rows, pending->send_counts, pending->send_begins);
    set_counts(receive_rows, pending->receive_counts, pending->receive_begins);
    pending->row =
        std::make_unique<BlockType>(in.shape().row_elements(), in.dtype(), options_.largest_count, where_);
    pending->requests.push_back(MPI_REQUEST_NULL);
    const MPI_Datatype row = pending->row->get();
    check_mpi(MPI_Ialltoallv(in.raw(), pending->send_counts.data(), pending->send_begins.data(), row,
                             out.raw(), pending->receive_counts.data(), pending->receive_begins.data(), row,
                             ranks_, &pending->requests.back()),
              "MPI_Ialltoallv", where_);
    return pending;
  }

  void run_broadcast(const Tensor& tensor, int root) override {
    if (!in_host_memory(tensor)) return on_device_of(tensor).broadcast(tensor, root)->wait();
    in_chunks(tensor, [&](void* data, int count) {
      check_mpi(MPI_Bcast(data, count, mpi_type(tensor.dtype()), root, ranks_), "MPI_Bcast", where_);
    });
  }

  void run_barrier() override { check_mpi(MPI_Barrier(ranks_), "MPI_Barrier", where_); }

 private:
  /// For each rank here its rank in MPI_COMM_WORLD.
  std::vector<std::int32_t> ranks_in_job() const {
    MPI_Group here = MPI_GROUP_NULL, job = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(ranks_, &here), "MPI_Comm_group", where_);
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &job), "MPI_Comm_group", where_);
    std::vector<int> own(static_cast<std::size_t>(size())), translated(own.size());
    std::iota(own.begin(), own.end(), 0);
    check_mpi(MPI_Group_translate_ranks(here, size(), own.data(), job, translated.data()),
              "MPI_Group_translate_ranks", where_);
    MPI_Group_free(&here);
    MPI_Group_free(&job);
    return {translated.begin(), translated.end()};
  }

  bool in_host_memory(const Tensor& tensor) const { return tensor.device().kind() == DeviceKind::cpu; }
  bool in_host_memory(const Tensor& in, const Tensor& out) const {
    check(&in.device() == &out.device(), "tensors on ", in.device().name(), " and ", out.device().name(),
          " came together to ", where_);
    return in_host_memory(in);
  }

  /// Made when the first tensor of a device comes, which all ranks bring at once.
  DeviceCollectives& on_device_of(const Tensor& tensor) {
    std::unique_ptr<DeviceCollectives>& collectives =
        on_device_.at(static_cast<std::size_t>(tensor.device().kind()));
    if (!collectives)
      collectives = device_collectives(
          tensor.device(), {rank(), size(), where_, [this](void* data, std::size_t bytes) {
                              check_mpi(MPI_Bcast(data, static_cast<int>(bytes), MPI_BYTE, 0, ranks_),
                                        "MPI_Bcast", where_);
                            }});
    return *collectives;
  }

  /// Calls action(data, count) for consecutive pieces of at most largest_count elements.
  template <class Action>
  void in_chunks(const Tensor& tensor, Action&& action) const {
    auto* data = static_cast<std::byte*>(tensor.raw());
    for (std::int64_t left = tensor.elements(); left > 0;) {
      const std::int64_t count = std::min(left, options_.largest_count);
      action(static_cast<void*>(data), static_cast<int>(count));
      data += static_cast<std::size_t>(count) * element_bytes(tensor.dtype());
      left -= count;
    }
  }

  void set_counts(const RowCounts& rows, std::vector<int>& counts, std::vector<int>& begins) const {
    std::int64_t begin = 0;
    for (const std::int64_t count : rows) {
      begins.push_back(static_cast<int>(begin));
      counts.push_back(static_cast<int>(count));
      begin += count;
      check(begin <= std::numeric_limits<int>::max(), "all_to_all_rows: ", begin, " rows came to ", where_,
            ", one exchange carries fewer than 2^31");
    }
  }

  MPI_Comm ranks_;
  MpiOptions options_;
  std::string where_;
  std::array<std::unique_ptr<DeviceCollectives>, 4>
      on_device_;  // [DeviceKind]; what has not been used is null
};

}  // namespace

std::shared_ptr<Communicator> mpi_communicator(MPI_Comm ranks, const std::string& name, MpiOptions options) {
  MPI_Comm own = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(ranks, &own), "MPI_Comm_dup", "communicator " + name);
  check_mpi(MPI_Comm_set_errhandler(own, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler",
            "communicator " + name);
  int rank = 0, size = 0;
  MPI_Comm_rank(own, &rank);
  MPI_Comm_size(own, &size);
  return std::make_shared<MpiCommunicator>(own, rank, size, name, std::make_shared<TrafficTable>(), options);
}

std::shared_ptr<Communicator> world_communicator(MpiOptions options) {
  return mpi_communicator(MPI_COMM_WORLD, "world", options);
}

}  // namespace conclave
