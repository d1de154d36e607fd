// A communicator whose ranks are threads of this process and whose reduction is given by the test, so that it
// can be a wrong one.
#pragma once

#include <barrier>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.h"

namespace conclave::test {

using Numbers = std::vector<double>;  // integers below 2^53 included

/// The numbers that a rank receives from an all-reduce, given what all ranks handed in.
using Rule = std::function<Numbers(const std::vector<Numbers>& contributions, int rank, DType dtype)>;

inline Numbers sum(const std::vector<Numbers>& contributions, int, DType) {
  Numbers total(contributions[0].size());
  for (const Numbers& numbers : contributions)
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += numbers[i];
  return total;
}

/// Ranks that are threads of this process; all-reduce is all that they can do.
class ThreadGroup {
 public:
  ThreadGroup(int size, Rule rule)
      : contributions(static_cast<std::size_t>(size)), reduce(std::move(rule)), meeting(size) {}
  std::vector<Numbers> contributions;
  Rule reduce;
  std::barrier<> meeting;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(ThreadGroup& group, int rank)
      : Communicator(rank, static_cast<int>(group.contributions.size()), "threads",
                     std::make_shared<TrafficTable>()),
        group_(group) {}
  std::shared_ptr<Communicator> split(const std::vector<int>&, const std::string& name) override {
    return alone(name);
  }
  NodePlace node_place() override { return {}; }

 protected:
  void run_all_reduce(const Tensor& tensor, ReduceOp) override {
    if (tensor.dtype() == DType::int64)
      reduce<std::int64_t>(tensor);
    else
      reduce<double>(tensor);
  }
  std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor& tensor, ReduceOp op) override {
    run_all_reduce(tensor, op);
    return nullptr;
  }
  void run_all_gather_rows(const Tensor&, const Tensor&) override { refuse(); }
  void run_reduce_scatter_rows(const Tensor&, const Tensor&) override { refuse(); }
  std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor&, const RowCounts&, const Tensor&,
                                                          const RowCounts&) override {
    refuse();
    return nullptr;
  }
  void run_broadcast(const Tensor&, int) override { refuse(); }
  void run_barrier() override { group_.meeting.arrive_and_wait(); }

 private:
  static void refuse() { check(false, "ThreadCommunicator: only all_reduce is there"); }
  template <class T>
  void reduce(const Tensor& tensor) {
    const std::vector<T> own = tensor.to_host<T>();
    group_.contributions[static_cast<std::size_t>(rank())] = Numbers(own.begin(), own.end());
    group_.meeting.arrive_and_wait();
    const Numbers result = group_.reduce(group_.contributions, rank(), tensor.dtype());
    group_.meeting.arrive_and_wait();
    tensor.copy_from(Tensor::from(std::vector<T>(result.begin(), result.end()), tensor.shape()));
  }
  ThreadGroup& group_;
};

}  // namespace conclave::test
