#include "parallel/communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "framework/base/random.h"
#include "framework/base/text.h"
#include "framework/device/named_range.h"
#include "framework/device/profile.h"

namespace conclave {

const char* name_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::parameters:
      return "parameters";
    case Purpose::gradients:
      return "gradients";
    case Purpose::dispatch:
      return "dispatch";
    case Purpose::combine:
      return "combine";
    case Purpose::statistics:
      return "statistics";
    case Purpose::activations:
      return "activations";
    case Purpose::agreement:
      return "agreement";
  }
  return "unknown";
}

namespace {

using Clock = std::chrono::steady_clock;

/// Counts the time since `begin` as waiting, here and in the profile.
void count_wait(TrafficTable& traffic, Purpose purpose, Clock::time_point begin) {
  traffic[purpose].wait_seconds += seconds_since(begin);
  if (Profile* profile = Profile::active())
    profile->add(Profile::Kind::wait, name_of(purpose), begin, Clock::now(), {});
}

bool overlap(const Tensor& a, const Tensor& b) {
  const auto* a_begin = static_cast<const std::byte*>(a.raw());
  const auto* b_begin = static_cast<const std::byte*>(b.raw());
  const std::less<> before;
  return a.bytes() > 0 && b.bytes() > 0 && before(a_begin, b_begin + b.bytes()) &&
         before(b_begin, a_begin + a.bytes());
}

/// A tensor without dims counts as one row of one element.
Shape row_shape(const Shape& shape) {
  return shape.dims() == 0 ? Shape{1} : shape;
}

}  // namespace

// --- Request

Request::Request(std::unique_ptr<Pending> pending, std::shared_ptr<TrafficTable> traffic, Purpose purpose,
                 std::int64_t entry)
    : pending_(std::move(pending)), traffic_(std::move(traffic)), purpose_(purpose), entry_(entry) {
  if (!pending_ && entry_ >= 0) traffic_->journal->leave(entry_);
}

Request& Request::operator=(Request&& other) noexcept {
  std::swap(pending_, other.pending_);
  std::swap(traffic_, other.traffic_);
  std::swap(purpose_, other.purpose_);
  std::swap(entry_, other.entry_);
  return *this;
}

Request::~Request() {
  if (!pending_) return;
  try {
    if (pending_->test()) return;
  } catch (const std::exception&) {
    // The error that made this request be dropped is the one to report.
  }
  static auto* kept = new std::vector<std::unique_ptr<Pending>>;
  kept->push_back(std::move(pending_));
}

bool Request::test() {
  if (pending_ && pending_->test()) {
    pending_.reset();
    if (entry_ >= 0 && traffic_->journal) traffic_->journal->leave(entry_);
  }
  return !pending_;
}

void Request::wait() {
  if (!pending_) return;
  const auto begin = Clock::now();
  const std::shared_ptr<Journal>& journal = traffic_->journal;
  if (entry_ >= 0 && journal) journal->wait(entry_);
  pending_->wait();
  pending_.reset();
  if (entry_ >= 0 && journal) journal->leave(entry_);
  count_wait(*traffic_, purpose_, begin);
}

// --- Communicator

void Communicator::set_members(const std::vector<std::int32_t>& ranks) {
  members_ = {ranks[0], 1, size_};
  if (size_ > 1) members_.stride = ranks[1] - ranks[0];
  RandomKey key = RandomKey(0).with(name_);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    key = key.with(static_cast<std::uint64_t>(ranks[i]));
    if (ranks[i] != members_.first + static_cast<std::int32_t>(i) * members_.stride) members_.stride = 0;
  }
  if (members_.stride < 0) members_.stride = 0;
  identity_ = key.value();
}

std::vector<int> Communicator::every_rank() const {
  std::vector<int> ranks(static_cast<std::size_t>(size_));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

int Communicator::place_in(const std::vector<int>& members, const std::string& name) const {
  const auto own = std::find(members.begin(), members.end(), rank_);
  check(own != members.end(), "split: rank ", rank_, " of communicator ", name_, " asked for ", name,
        ", a set of ", members.size(), " ranks that it is not in");
  return static_cast<int>(own - members.begin());
}

std::int64_t Communicator::enter(const char* operation, Purpose purpose, std::size_t bytes, bool started) {
  Traffic& traffic = (*traffic_)[purpose];
  traffic.calls += 1;
  if (size_ == 1) {  // nobody to wait for
    note_progress();
    return -1;
  }
  traffic.bytes += static_cast<std::int64_t>(bytes);
  ++sequence_;
  if (traffic_->log)
    ++(*traffic_->log)[{purpose, operation, started, static_cast<std::int64_t>(bytes), members_}];
  if (!traffic_->journal) return -1;
  JournalEntry entry;
  entry.communicator = identity_;
  entry.sequence = sequence_;
  entry.bytes = static_cast<std::int64_t>(bytes);
  entry.members = members_;
  const auto fill = [](auto& letters, const char* text) {
    std::strncpy(letters.data(), text, letters.size() - 1);
  };
  fill(entry.name, name_.c_str());
  fill(entry.operation, operation);
  fill(entry.purpose, conclave::name_of(purpose));
  return traffic_->journal->enter(entry);
}

template <class Action>
void Communicator::timed(Purpose purpose, std::int64_t entry, Action&& action) {
  const auto begin = Clock::now();
  const NamedRange range(conclave::name_of(purpose));
  if (entry >= 0) traffic_->journal->wait(entry);
  action();
  if (entry >= 0) traffic_->journal->leave(entry);
  count_wait(*traffic_, purpose, begin);
}

void Communicator::check_defined(const char* where, const Tensor& tensor) const {
  check(tensor.defined(), where, ": no tensor came to communicator ", name_, " on rank ", rank_);
}

void Communicator::check_summable(const char* where, const Tensor& tensor) const {
  check(tensor.dtype() != DType::bfloat16, where, ": a tensor of bfloat16 came to communicator ", name_,
        " on rank ", rank_, ", expected float32: sums over ranks are not rounded to bfloat16 on the way");
}

void Communicator::check_even_rows(const char* where, const Tensor& part, const char* part_name,
                                   const Tensor& whole, const char* whole_name) const {
  check(part.defined() && whole.defined(), where, ": ", part_name, " or ", whole_name,
        " is missing on communicator ", name_, ", rank ", rank_);
  const Shape shape = row_shape(part.shape());
  check(part.dtype() == whole.dtype() && whole.shape() == shape.with(0, shape[0] * size_), where, ": ",
        whole_name, " is ", name_of(whole.dtype()), " ", whole.shape(), " on communicator ", name_, ", rank ",
        rank_, ", expected ", name_of(part.dtype()), " ", shape.with(0, shape[0] * size_), " for ", size_,
        " ranks with ", part_name, " ", part.shape());
}

void Communicator::all_reduce(const Tensor& tensor, ReduceOp op, Purpose purpose) {
  check_defined("all_reduce", tensor);
  check_summable("all_reduce", tensor);
  const std::int64_t entry = enter("all_reduce", purpose, tensor.bytes());
  timed(purpose, entry, [&] { run_all_reduce(tensor, op); });
}

Request Communicator::start_all_reduce(const Tensor& tensor, ReduceOp op, Purpose purpose) {
  check_defined("start_all_reduce", tensor);
  check_summable("start_all_reduce", tensor);
  const std::int64_t entry = enter("all_reduce", purpose, tensor.bytes(), true);
  const NamedRange range(conclave::name_of(purpose));
  return Request(begin_all_reduce(tensor, op), traffic_, purpose, entry);
}

void Communicator::all_gather_rows(const Tensor& in, const Tensor& out, Purpose purpose) {
  check_even_rows("all_gather_rows", in, "in", out, "out");
  const auto* own = static_cast<const std::byte*>(out.raw()) + static_cast<std::size_t>(rank_) * in.bytes();
  check(!overlap(in, out) || in.raw() == own, "all_gather_rows: in overlaps out on communicator ", name_,
        ", rank ", rank_, ", but is not this rank's own rows of it");
  const std::int64_t entry = enter("all_gather_rows", purpose, in.bytes());
  timed(purpose, entry, [&] { run_all_gather_rows(in, out); });
}

void Communicator::reduce_scatter_rows(const Tensor& in, const Tensor& out, Purpose purpose) {
  check_even_rows("reduce_scatter_rows", out, "out", in, "in");
  check_summable("reduce_scatter_rows", in);
  check(!overlap(in, out), "reduce_scatter_rows: in overlaps out on communicator ", name_, ", rank ", rank_);
  const std::int64_t entry = enter("reduce_scatter_rows", purpose, in.bytes() - out.bytes());
  timed(purpose, entry, [&] { run_reduce_scatter_rows(in, out); });
}

Request Communicator::start_reduce_scatter_rows(const Tensor& in, const Tensor& out, Purpose purpose) {
  check_even_rows("start_reduce_scatter_rows", out, "out", in, "in");
  check_summable("start_reduce_scatter_rows", in);
  check(!overlap(in, out), "start_reduce_scatter_rows: in overlaps out on communicator ", name_, ", rank ",
        rank_);
  const std::int64_t entry = enter("reduce_scatter_rows", purpose, in.bytes() - out.bytes(), true);
  const NamedRange range(conclave::name_of(purpose));
  return Request(begin_reduce_scatter_rows(in, out), traffic_, purpose, entry);
}

void Communicator::all_to_all_rows(const Tensor& in, const RowCounts& send_rows, const Tensor& out,
                                   const RowCounts& receive_rows, Purpose purpose) {
  start_all_to_all_rows(in, send_rows, out, receive_rows, purpose).wait();
}

Request Communicator::start_all_to_all_rows(const Tensor& in, const RowCounts& send_rows, const Tensor& out,
                                            const RowCounts& receive_rows, Purpose purpose) {
  const auto check_side = [&](const Tensor& tensor, const char* side, const RowCounts& rows) {
    check(tensor.defined() && tensor.shape().dims() > 0, "all_to_all_rows: ", side,
          " has no rows dim on communicator ", name_, ", rank ", rank_);
    check(static_cast<int>(rows.size()) == size_, "all_to_all_rows: ", rows.size(), " row counts came for ",
          side, " on communicator ", name_, " of ", size_, " ranks");
    std::int64_t total = 0;
    for (const std::int64_t count : rows) {
      check(count >= 0, "all_to_all_rows: a row count of ", count, " came for ", side, " on communicator ",
            name_);
      total += count;
    }
    check(total == tensor.rows(), "all_to_all_rows: ", side, " is ", tensor.shape(), " on communicator ",
          name_, ", rank ", rank_, ", its row counts sum to ", total);
  };
  check_side(in, "in", send_rows);
  check_side(out, "out", receive_rows);
  check(in.dtype() == out.dtype() && out.shape().with(0, in.rows()) == in.shape(), "all_to_all_rows: in is ",
        name_of(in.dtype()), " ", in.shape(), " and out ", name_of(out.dtype()), " ", out.shape(),
        ", rows of the same type and width were expected");
  const auto own = static_cast<std::size_t>(rank_);
  check(send_rows[own] == receive_rows[own], "all_to_all_rows: rank ", rank_, " sends ", send_rows[own],
        " rows to itself but expects ", receive_rows[own]);
  check(!overlap(in, out), "all_to_all_rows: in overlaps out on communicator ", name_, ", rank ", rank_);
  const std::int64_t leaving = in.rows() - send_rows[own];
  const std::int64_t entry =
      enter("all_to_all_rows", purpose,
            static_cast<std::size_t>(leaving * in.shape().row_elements()) * element_bytes(in.dtype()), true);
  const NamedRange range(conclave::name_of(purpose));
  return Request(begin_all_to_all_rows(in, send_rows, out, receive_rows), traffic_, purpose, entry);
}

void Communicator::broadcast(const Tensor& tensor, int root, Purpose purpose) {
  check_defined("broadcast", tensor);
  check(0 <= root && root < size_, "broadcast: root ", root, " came to communicator ", name_, " of ", size_,
        " ranks");
  const std::int64_t entry = enter("broadcast", purpose, rank_ == root ? tensor.bytes() : 0);
  timed(purpose, entry, [&] { run_broadcast(tensor, root); });
}

void Communicator::barrier() {
  const std::int64_t entry = enter("barrier", Purpose::agreement, 0);
  timed(Purpose::agreement, entry, [&] { run_barrier(); });
}

// --- host values

RowCounts exchange_counts(Communicator& communicator, const RowCounts& send_rows, Purpose purpose) {
  const std::int64_t ranks = communicator.size();
  const RowCounts one_each(static_cast<std::size_t>(ranks), 1);
  const Tensor received = Tensor::empty({ranks}, DType::int64);
  communicator.all_to_all_rows(Tensor::from(send_rows, {ranks}), one_each, received, one_each, purpose);
  return received.to_host<std::int64_t>();
}

namespace {

/// Text in tensors of int64: its letters, zeros after them.
Tensor packed(const std::string& text, std::int64_t words) {
  std::vector<std::int64_t> values(static_cast<std::size_t>(words), 0);
  if (!text.empty()) std::memcpy(values.data(), text.data(), text.size());
  return Tensor::from(values, {words});
}

std::int64_t words_of(std::int64_t letters) {
  return (letters + 7) / 8;
}

}  // namespace

std::vector<std::string> all_gather_text(Communicator& communicator, const std::string& text) {
  const std::int64_t ranks = communicator.size();
  const Tensor lengths = Tensor::empty({ranks}, DType::int64);
  communicator.all_gather_rows(
      Tensor::from(std::vector<std::int64_t>{static_cast<std::int64_t>(text.size())}, {1}), lengths,
      Purpose::agreement);
  const auto length = lengths.to_host<std::int64_t>();
  const std::int64_t words = words_of(*std::max_element(length.begin(), length.end()));
  const Tensor letters = Tensor::empty({ranks * words}, DType::int64);
  communicator.all_gather_rows(packed(text, words), letters, Purpose::agreement);
  const auto values = letters.to_host<std::int64_t>();
  std::vector<std::string> texts;
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    texts.emplace_back(reinterpret_cast<const char*>(values.data() + rank * words),
                       static_cast<std::size_t>(length[static_cast<std::size_t>(rank)]));
  return texts;
}

std::string broadcast_text(Communicator& communicator, const std::string& text, int root) {
  const Tensor length = Tensor::from(std::vector<std::int64_t>{static_cast<std::int64_t>(text.size())}, {1});
  communicator.broadcast(length, root, Purpose::agreement);
  const std::int64_t letters = length.to_host<std::int64_t>()[0];
  const Tensor words = packed(communicator.rank() == root ? text : std::string(), words_of(letters));
  communicator.broadcast(words, root, Purpose::agreement);
  const auto values = words.to_host<std::int64_t>();
  return std::string(reinterpret_cast<const char*>(values.data()), static_cast<std::size_t>(letters));
}

}  // namespace conclave
