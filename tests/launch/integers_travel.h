// A communicator for dry runs on ranks that are really there: integers travel between them, and tensors in
// the host's memory; floating-point tensors of a device that computes nothing stay where they are.
#pragma once

#include "parallel/communicator.h"

namespace conclave::test {

class IntegersTravel final : public Communicator {
 public:
  /// All that this one and its splits do is counted in `traffic`.
  IntegersTravel(std::shared_ptr<Communicator> ranks, std::shared_ptr<TrafficTable> traffic)
      : Communicator(ranks->rank(), ranks->size(), ranks->name(), std::move(traffic)),
        ranks_(std::move(ranks)) {}

  std::shared_ptr<Communicator> split(const std::vector<int>& members, const std::string& name) override {
    const std::shared_ptr<Communicator> part = ranks_->split(members, name);
    if (part->size() == 1) return alone(name);
    return std::make_shared<IntegersTravel>(part, traffic_table());
  }
  NodePlace node_place() override { return ranks_->node_place(); }

 protected:
  void run_all_reduce(const Tensor& tensor, ReduceOp op) override {
    on_host({tensor}, [&](const std::vector<Tensor>& host) { ranks_->all_reduce(host[0], op, purpose); });
  }
  std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor& tensor, ReduceOp op) override {
    run_all_reduce(tensor, op);
    return nullptr;
  }
  void run_all_gather_rows(const Tensor& in, const Tensor& out) override {
    on_host({in, out},
            [&](const std::vector<Tensor>& host) { ranks_->all_gather_rows(host[0], host[1], purpose); });
  }
  void run_reduce_scatter_rows(const Tensor& in, const Tensor& out) override {
    on_host({in, out},
            [&](const std::vector<Tensor>& host) { ranks_->reduce_scatter_rows(host[0], host[1], purpose); });
  }
  std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor& in, const RowCounts& send_rows,
                                                          const Tensor& out,
                                                          const RowCounts& receive_rows) override {
    on_host({in, out}, [&](const std::vector<Tensor>& host) {
      ranks_->all_to_all_rows(host[0], send_rows, host[1], receive_rows, purpose);
    });
    return nullptr;
  }
  void run_broadcast(const Tensor& tensor, int root) override {
    on_host({tensor}, [&](const std::vector<Tensor>& host) { ranks_->broadcast(host[0], root, purpose); });
  }
  void run_barrier() override { ranks_->barrier(); }

 private:
  static constexpr Purpose purpose = Purpose::agreement;

  /// Runs the collective on copies, and brings back what it did, where there is anything to send.
  template <class Action>
  static void on_host(const std::vector<Tensor>& tensors, Action&& action) {
    if (!tensors[0].device().computes() && is_floating(tensors[0].dtype())) return;
    std::vector<Tensor> host;
    for (const Tensor& tensor : tensors) {
      host.push_back(Tensor::empty(tensor.shape(), tensor.dtype()));
      host.back().copy_from(tensor);
    }
    action(host);
    for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].copy_from(host[i]);
  }

  std::shared_ptr<Communicator> ranks_;
};

inline std::shared_ptr<Communicator> integers_travel(const std::shared_ptr<Communicator>& ranks) {
  return std::make_shared<IntegersTravel>(ranks, std::make_shared<TrafficTable>());
}

}  // namespace conclave::test
