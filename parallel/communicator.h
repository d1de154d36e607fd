// Communicator: a group of ranks that call the same collectives in the same order. Results are the same on
// every run of the same layout. Tensors are contiguous and never resized, since the caller owns all memory.
// Any type may be moved, and all types but bfloat16 may be added up. Every collective says what it is for, so
// that calls, bytes and waiting are counted by purpose. The implementations self (one rank, self.cpp) and MPI
// (mpi.h) have the same meaning. Over MPI, tensors on a device travel by NCCL (device_collectives.h). On a
// device, "returns" and "complete" are those of its stream, and the host does not wait.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "framework/tensor/tensor.h"
#include "parallel/journal.h"

namespace conclave {

enum class ReduceOp { sum, maximum, minimum };

/// Every collective serves one of these purposes.
enum class Purpose { parameters, gradients, dispatch, combine, statistics, activations, agreement };
constexpr int purposes = 7;
const char* name_of(Purpose purpose);

/// Traffic counts what this rank has done for one purpose. `bytes` is the payload that the caller handed over
/// for other ranks, whatever algorithm carries it. An all-reduce counts the whole tensor, and an all-gather
/// its own rows. A reduce-scatter or an all-to-all counts the rows for other ranks, and a broadcast counts at
/// its root. One rank alone counts nothing.
struct Traffic {
  std::int64_t calls = 0;
  std::int64_t bytes = 0;
  double wait_seconds = 0;  // in blocking collectives and in Request::wait
};

/// A Collective describes a collective as a rank enters it.
struct Collective {
  Purpose purpose;
  std::string_view operation;  // a literal: all_reduce, all_gather_rows, ...
  bool started = false;        // the rank goes on and waits later
  std::int64_t bytes = 0;      // as Traffic counts them
  Members members;             // of the job
  auto operator<=>(const Collective&) const = default;
};
/// The log counts the collectives of each kind.
using CollectiveLog = std::map<Collective, std::int64_t>;

/// A table holds one Traffic per Purpose, and the journal. A communicator and everything split from it share
/// one table.
class TrafficTable {
 public:
  Traffic& operator[](Purpose purpose) { return entries_[static_cast<std::size_t>(purpose)]; }
  const Traffic& operator[](Purpose purpose) const { return entries_[static_cast<std::size_t>(purpose)]; }

  /// Returns what has come since an earlier state of the same table.
  TrafficTable since(const TrafficTable& before) const {
    TrafficTable difference;
    for (std::size_t i = 0; i < entries_.size(); ++i)
      difference.entries_[i] = {entries_[i].calls - before.entries_[i].calls,
                                entries_[i].bytes - before.entries_[i].bytes,
                                entries_[i].wait_seconds - before.entries_[i].wait_seconds};
    return difference;
  }
  double wait_seconds() const {
    double sum = 0;
    for (const Traffic& traffic : entries_) sum += traffic.wait_seconds;
    return sum;
  }

  std::shared_ptr<Journal> journal;    // where collectives of several ranks are noted; may be null
  std::shared_ptr<CollectiveLog> log;  // likewise, to be read by this process

 private:
  std::array<Traffic, purposes> entries_;
};

/// A Request is a collective under way. Its tensors must not be touched until wait() returns or test() says
/// true; they are kept alive until then. A default Request is complete.
class Request {
 public:
  /// An implementation waits for a Pending; test() says whether it is complete and lets it make progress.
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual bool test() = 0;
    virtual void wait() = 0;
  };

  Request() = default;
  /// `entry` is its number in the journal, -1 where it has none.
  Request(std::unique_ptr<Pending> pending, std::shared_ptr<TrafficTable> traffic, Purpose purpose,
          std::int64_t entry);
  Request(Request&& other) noexcept = default;
  Request& operator=(Request&& other) noexcept;
  /// A Request may be dropped before it is complete, while an error unwinds. It does not wait then, since the
  /// partners may never come. The memory of its tensors stays reserved to the end of the process, because the
  /// network may still write there.
  ~Request();

  bool test();
  void wait();

 private:
  std::unique_ptr<Pending> pending_;
  std::shared_ptr<TrafficTable> traffic_;
  Purpose purpose_ = Purpose::agreement;
  std::int64_t entry_ = -1;
};

/// RowCounts are the rows per rank of an uneven exchange, [size].
using RowCounts = std::vector<std::int64_t>;

/// NodePlace says where this rank stands among the ranks on the same machine.
struct NodePlace {
  int rank = 0;
  int size = 1;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }

  /// tensor = the reduction of all ranks' tensors, in place. Integers are reduced exactly.
  void all_reduce(const Tensor& tensor, ReduceOp op, Purpose purpose);
  [[nodiscard]] Request start_all_reduce(const Tensor& tensor, ReduceOp op, Purpose purpose);

  /// out = the rows of rank 0, of rank 1, ... `in` may be this rank's own rows of `out`.
  void all_gather_rows(const Tensor& in,   // [rows, ...]
                       const Tensor& out,  // [size * rows, ...]
                       Purpose purpose);

  /// out = this rank's rows of the sum of all ranks' `in`.
  void reduce_scatter_rows(const Tensor& in,   // [size * rows, ...]
                           const Tensor& out,  // [rows, ...]
                           Purpose purpose);
  [[nodiscard]] Request start_reduce_scatter_rows(const Tensor& in, const Tensor& out, Purpose purpose);

  /// Sends the first send_rows[0] rows of `in` to rank 0, the next send_rows[1] rows to rank 1, and so on.
  /// `out` receives receive_rows[r] rows from rank r, in the order of ranks. Zero rows are normal.
  void all_to_all_rows(const Tensor& in,            // [sum of send_rows, ...]
                       const RowCounts& send_rows,  // [size]
                       const Tensor& out,           // [sum of receive_rows, ...]
                       const RowCounts& receive_rows, Purpose purpose);
  [[nodiscard]] Request start_all_to_all_rows(const Tensor& in, const RowCounts& send_rows, const Tensor& out,
                                              const RowCounts& receive_rows, Purpose purpose);

  /// tensor = the root's tensor.
  void broadcast(const Tensor& tensor, int root, Purpose purpose);
  void barrier();

  /// Makes a communicator of these ranks of this one, in this order. Every rank here calls it and names the
  /// set that it is in; two sets are equal or have no rank in common. Collective.
  virtual std::shared_ptr<Communicator> split(const std::vector<int>& members, const std::string& name) = 0;
  /// Returns 0 .. size() - 1.
  std::vector<int> every_rank() const;
  /// Makes a communicator of this rank alone, which counts into the same table. It is not collective.
  std::shared_ptr<Communicator> alone(const std::string& name) const;
  /// Returns this rank's place on its node, for choosing threads per rank. Collective.
  virtual NodePlace node_place() = 0;

  /// Counts what is done by this communicator, the one that it was split from, and all others split from
  /// that.
  const TrafficTable& traffic() const { return *traffic_; }
  /// Counts from now on what these communicators do by kind; null ends it.
  void keep_log(std::shared_ptr<CollectiveLog> log) { traffic_->log = std::move(log); }
  /// Notes from now on what these communicators do; null ends it.
  void keep_journal(std::shared_ptr<Journal> journal) { traffic_->journal = std::move(journal); }
  /// Tells the journal, if there is one, which part of the run begins; `step` counts from 1.
  void note(Activity activity, std::int64_t step) const {
    if (traffic_->journal) traffic_->journal->note(activity, step);
  }
  /// Notes that this rank is about to end the job by its own will.
  void note_leaving() const {
    if (traffic_->journal) traffic_->journal->mark_leaving();
  }
  void note_progress() const {
    if (traffic_->journal) traffic_->journal->note_progress();
  }

 protected:
  Communicator(int rank, int size, std::string name, std::shared_ptr<TrafficTable> traffic)
      : rank_(rank), size_(size), name_(std::move(name)), traffic_(std::move(traffic)) {}

  /// Returns where this rank stands among `members`, which split() was given. Throws Fault::internal where it
  /// is missing.
  int place_in(const std::vector<int>& members, const std::string& name) const;
  /// Says which of the job's ranks these are, [size]. An implementation that spans processes says it once.
  void set_members(const std::vector<std::int32_t>& ranks);

  // An implementation does the following; shapes and counts have been checked.
  virtual void run_all_reduce(const Tensor& tensor, ReduceOp op) = 0;
  virtual std::unique_ptr<Request::Pending> begin_all_reduce(const Tensor& tensor, ReduceOp op) = 0;
  virtual void run_all_gather_rows(const Tensor& in, const Tensor& out) = 0;
  virtual void run_reduce_scatter_rows(const Tensor& in, const Tensor& out) = 0;
  /// An implementation may do all of it at once and return nothing.
  virtual std::unique_ptr<Request::Pending> begin_reduce_scatter_rows(const Tensor& in, const Tensor& out) {
    run_reduce_scatter_rows(in, out);
    return nullptr;
  }
  virtual std::unique_ptr<Request::Pending> begin_all_to_all_rows(const Tensor& in,
                                                                  const RowCounts& send_rows,
                                                                  const Tensor& out,
                                                                  const RowCounts& receive_rows) = 0;
  virtual void run_broadcast(const Tensor& tensor, int root) = 0;
  virtual void run_barrier() = 0;

  const std::shared_ptr<TrafficTable>& traffic_table() const { return traffic_; }

 private:
  void check_even_rows(const char* where, const Tensor& part, const char* part_name, const Tensor& whole,
                       const char* whole_name) const;
  void check_defined(const char* where, const Tensor& tensor) const;
  void check_summable(const char* where, const Tensor& tensor) const;
  /// Counts a collective and notes it; returns its number in the journal or -1. `started` is as in
  /// Collective.
  std::int64_t enter(const char* operation, Purpose purpose, std::size_t bytes, bool started = false);
  template <class Action>
  void timed(Purpose purpose, std::int64_t entry, Action&& action);

  int rank_, size_;
  std::string name_;
  std::shared_ptr<TrafficTable> traffic_;
  Members members_;
  std::uint64_t identity_ = 0;  // of name and members
  std::int64_t sequence_ = 0;   // collectives entered here
};

/// Makes a communicator of one rank, with its own traffic table.
std::shared_ptr<Communicator> self_communicator();

/// Returns how many rows each rank will send here, when `send_rows` says how many go to each rank.
/// Collective.
RowCounts exchange_counts(Communicator& communicator, const RowCounts& send_rows, Purpose purpose);

/// Returns the texts of all ranks, on every rank. Collective.
std::vector<std::string> all_gather_text(Communicator& communicator, const std::string& text);

/// Returns the root's text, on every rank. Collective.
std::string broadcast_text(Communicator& communicator, const std::string& text, int root);

}  // namespace conclave
