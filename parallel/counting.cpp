#include "parallel/counting.h"

#include <algorithm>
#include <numeric>

namespace conclave {
namespace {

bool holds_numbers(const Tensor& tensor) {
  return tensor.device().computes() || !is_floating(tensor.dtype());
}

/// tensor = factor * tensor
template <class T>
void multiply(const Tensor& tensor, int factor) {
  T* const values = tensor.data<T>();
  for (std::int64_t i = 0; i < tensor.elements(); ++i) values[i] *= static_cast<T>(factor);
}

/// The sum over ranks that all hand in the same.
void sum_over_equals(const Tensor& tensor, int ranks) {
  switch (tensor.dtype()) {
    case DType::float32:
      return multiply<float>(tensor, ranks);
    case DType::float64:
      return multiply<double>(tensor, ranks);
    case DType::int32:
      return multiply<std::int32_t>(tensor, ranks);
    case DType::int64:
      return multiply<std::int64_t>(tensor, ranks);
    case DType::bfloat16:
      break;
  }
  fail(Fault::internal, "counting communicator: a sum of ", name_of(tensor.dtype()), " was asked for");
}

class CountingCommunicator final : public Communicator {
 public:
  CountingCommunicator(int rank, std::vector<std::int32_t> job_ranks, const std::string& name,
                       std::shared_ptr<TrafficTable> traffic, std::shared_ptr<OtherRanks> others)
      : Communicator(rank, static_cast<int>(job_ranks.size()), name, std::move(traffic)),
        job_ranks_(std::move(job_ranks)),
        others_(std::move(others)) {
    set_members(job_ranks_);
  }

  std::shared_ptr<Communicator> split(const std::vector<int>& members, const std::string& part) override {
    const int place = place_in(members, part);
    if (members.size() == 1) return alone(part);
    std::vector<std::int32_t> job_ranks;
    for (const int member : members) job_ranks.push_back(job_ranks_.at(static_cast<std::size_t>(member)));
    return std::make_shared<CountingCommunicator>(place, std::move(job_ranks), part, traffic_table(),
                                                  others_);
  }
  NodePlace node_place() override { return {}; }

 protected:
  void run_all_reduce(const Tensor& tensor, ReduceOp op) override {
    if (op == ReduceOp::sum && holds_numbers(tensor)) sum_over_equals(tensor, size());
  }
  std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor& tensor, ReduceOp op) override {
    run_all_reduce(tensor, op);
    return nullptr;
  }
  void run_all_gather_rows(const Tensor& in, const Tensor& out) override {
    if (!holds_numbers(in)) return;
    if (others_) others_->before_gather(*this, in);
    for (int sender = 0; sender < size(); ++sender) {
      std::byte* const to =
          static_cast<std::byte*>(out.raw()) + static_cast<std::size_t>(sender) * in.bytes();
      if (to != in.raw()) out.device().copy(to, in.raw(), in.bytes());
    }
  }
  void run_reduce_scatter_rows(const Tensor& in, const Tensor& out) override {
    if (!holds_numbers(in)) return;
    const auto* own =
        static_cast<const std::byte*>(in.raw()) + static_cast<std::size_t>(rank()) * out.bytes();
    out.device().copy(out.raw(), own, out.bytes());
    sum_over_equals(out, size());
  }
  /// Each of the others sends here what this rank sends to itself, again and again where more is expected.
  std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor& in, const RowCounts& send_rows,
                                                          const Tensor& out,
                                                          const RowCounts& receive_rows) override {
    if (!holds_numbers(in) || (others_ && others_->answer_exchange(*this, in, out))) return nullptr;
    const auto own = static_cast<std::size_t>(rank());
    const std::int64_t first =
                           std::accumulate(send_rows.begin(), send_rows.begin() + rank(), std::int64_t{0}),
                       rows = send_rows[own];
    std::int64_t next = 0;
    for (const std::int64_t count : receive_rows)
      for (std::int64_t row = 0; row < count; ++row, ++next)
        if (rows > 0)
          out.slice(next, next + 1).copy_from(in.slice(first + row % rows, first + row % rows + 1));
        else
          out.slice(next, next + 1).fill_zero();
    return nullptr;
  }
  void run_broadcast(const Tensor&, int) override {}
  void run_barrier() override {}

 private:
  std::vector<std::int32_t> job_ranks_;
  std::shared_ptr<OtherRanks> others_;
};

}  // namespace

std::shared_ptr<Communicator> counting_communicator(int rank, int size, std::shared_ptr<OtherRanks> others) {
  check(rank >= 0 && rank < size, "counting_communicator: rank ", rank, " of ", size, " cannot be");
  if (size == 1) return self_communicator();
  std::vector<std::int32_t> job_ranks(static_cast<std::size_t>(size));
  std::iota(job_ranks.begin(), job_ranks.end(), 0);
  return std::make_shared<CountingCommunicator>(rank, std::move(job_ranks), "world",
                                                std::make_shared<TrafficTable>(), std::move(others));
}

}  // namespace conclave
