// A communicator that claims to be the first of two ranks, whose partner does the same as this one: what it
// sends to rank 1 comes back as if rank 1 had sent it. Rows come only when they are waited for, and all is
// written down, so that a test sees what lies between the start of an exchange and its end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace conclave::test {

struct LogEntry {
  std::string what;        // "start 0", "wait 0", "start 1", ...; and what the test itself writes
  std::size_t live_bytes;  // of tensors, when it happened
};

class Log {
 public:
  void write(const std::string& what) { entries_.push_back({what, cpu_device().memory_use().live}); }
  std::vector<LogEntry> take() { return std::exchange(entries_, {}); }
  int next_exchange() { return exchanges_++; }

 private:
  std::vector<LogEntry> entries_;
  int exchanges_ = 0;
};

inline std::vector<std::string> words_of(const std::vector<LogEntry>& log) {
  std::vector<std::string> words;
  for (const LogEntry& entry : log) words.push_back(entry.what);
  return words;
}

/// Exchanges of rows are all that it can do. Its splits have two ranks, too, and the same log.
class MirrorCommunicator final : public Communicator {
 public:
  explicit MirrorCommunicator(Log& log)
      : Communicator(0, 2, "mirror", std::make_shared<TrafficTable>()), log_(log) {}
  std::shared_ptr<Communicator> split(const std::vector<int>&, const std::string&) override {
    return std::make_shared<MirrorCommunicator>(log_);
  }
  NodePlace node_place() override { return {}; }

 protected:
  std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor& in, const RowCounts&,
                                                          const Tensor& out, const RowCounts&) override {
    return std::make_unique<Pending>(log_, in, out);
  }
  void run_all_reduce(const Tensor&, ReduceOp) override { refuse(); }
  std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor&, ReduceOp) override { return refuse(); }
  void run_all_gather_rows(const Tensor&, const Tensor&) override { refuse(); }
  void run_reduce_scatter_rows(const Tensor&, const Tensor&) override { refuse(); }
  void run_broadcast(const Tensor&, int) override { refuse(); }
  void run_barrier() override { refuse(); }

 private:
  struct Pending final : Request::Pending {
    Pending(Log& the_log, const Tensor& from, const Tensor& to)
        : log(the_log), number(log.next_exchange()), in(from), out(to) {
      log.write(join_text("start ", number));
    }
    bool test() override { return false; }
    void wait() override {
      out.copy_from(in);
      log.write(join_text("wait ", number));
    }
    Log& log;
    int number;
    Tensor in, out;
  };
  static std::unique_ptr<Request::Pending> refuse() {
    check(false, "MirrorCommunicator only exchanges rows");
    return nullptr;
  }
  Log& log_;
};

}  // namespace conclave::test
