// A training step with sizes in place of tensors: buffers that are only counted, and a tape whose ops keep
// and allocate what the ops of framework/autograd and parallel/collectives.h do, in the same order. What is
// live at once then comes out as the device would count it, without a formula for every place where a step
// may peak. Small tensors of fixed size (counts by expert, losses) are left out.
#pragma once

#include <functional>
#include <memory>
#include <vector>

namespace conclave {

/// What is live, and the most that was; in bytes, rounded as the device's allocator rounds. Doubles, so that
/// an absurd recipe gives an absurd number and not an overflow.
struct PlannedUse {
  double live = 0;
  double peak = 0;
};

/// Counted while somebody holds it.
using SizedBuffer = std::shared_ptr<const void>;

/// Bytes that a buffer takes of the device.
double allocated_bytes(double bytes);

/// A Variable of [rows, width] numbers of so many bytes each.
struct SizedValue {
  double rows = 0;
  double width = 0;
  double element = 0;
  SizedBuffer value;
  std::shared_ptr<SizedBuffer> gradient;  // null: not recorded

  double elements() const { return rows * width; }
  double bytes() const { return elements() * element; }
};

/// How backward brings an input its gradient.
enum class Flow {
  fresh,      // in memory of its own, then handed over or added
  in_place,   // written into the sum that is there, or into a new one
  handed_on,  // the output's gradient itself
};
struct SizedInput {
  SizedValue value;
  Flow flow;
};

class SizedTape {
 public:
  enum class Mode { record, forward_only };
  /// `element`: bytes of an activation; `sum`: of a number of its sum_type.
  SizedTape(PlannedUse& use, double element, double sum, Mode mode = Mode::record)
      : use_(use), element_(element), sum_(sum), mode_(mode) {}
  SizedTape(const SizedTape&) = delete;
  SizedTape& operator=(const SizedTape&) = delete;

  bool recording() const { return mode_ == Mode::record; }
  double element() const { return element_; }
  double sum() const { return sum_; }

  SizedBuffer bytes(double count) const;
  SizedBuffer sums(double count) const { return bytes(count * sum_); }
  /// A result in memory of its own, or in that of `shared`; `element`: bytes of one of its numbers.
  SizedValue output(double rows, double width, double element) const;
  SizedValue output(double rows, double width, double element, const SizedBuffer& shared) const;

  /// Keeps `kept` for backward, which takes the result's gradient, needs `scratch` bytes while it runs, and
  /// brings the inputs theirs.
  void record(const std::vector<SizedInput>& inputs, const SizedValue& result, std::vector<SizedBuffer> kept,
              double scratch = 0);
  /// Backward of anything else.
  void record(std::function<void()> backward);

  void backward();

  using Body = std::function<SizedValue(SizedTape&, const std::vector<SizedValue>&)>;
  /// recompute() of autograd/tape.h, with one output.
  SizedValue recompute(const std::vector<SizedValue>& inputs, const Body& body);

 private:
  PlannedUse& use_;
  double element_, sum_;
  Mode mode_;
  std::vector<std::function<void()>> entries_;
};

/// Three int32 per slot and row (kernels.h).
struct SizedOrder {
  std::vector<SizedBuffer> buffers;
  double rows = 0;
};

// The ops. Beside each: what it keeps for backward.
SizedValue to_sum_type(SizedTape& tape, const SizedValue& x);                     // nothing
SizedValue linear(SizedTape& tape, const SizedValue& x, double width);            // x
SizedValue rms_norm(SizedTape& tape, const SizedValue& x, double norms_per_row);  // x, a factor per norm
SizedValue rope(SizedTape& tape, const SizedValue& x);                            // nothing
/// Numbers that the attention kernels of all threads work in (framework/kernels/cpu/attention.cpp, Room).
struct AttentionRoom {
  double forward, backward;
};
SizedValue attention(SizedTape& tape, const SizedValue& query, const SizedValue& key, const SizedValue& value,
                     double heads, AttentionRoom room);  // its inputs, its result, a factor per head
SizedValue add(SizedTape& tape, const SizedValue& a, const SizedValue& b);         // nothing
SizedValue swiglu(SizedTape& tape, const SizedValue& gate, const SizedValue& up);  // its inputs
SizedValue embedding(SizedTape& tape, double tokens, double hidden);               // nothing
/// logits -> weights [tokens, top_k]; keeps them, the choice, the probabilities and a factor per token, and
/// the logits where the scores are sigmoids
SizedValue route(SizedTape& tape, const SizedValue& logits, double top_k, bool sigmoid, SizedBuffer& chosen);
SizedOrder sort_rows(SizedTape& tape, double slots, double rows);
SizedValue permute_rows(SizedTape& tape, const SizedValue& x, const SizedOrder& order);  // the order
SizedValue combine_rows(SizedTape& tape, const SizedValue& rows, const SizedValue& weights,
                        const SizedOrder& order);                               // its inputs and the order
SizedValue repeat_columns(SizedTape& tape, const SizedValue& x, double times);  // nothing of size
/// Where a collective sums over ranks, which needs a copy in sum_type where activations are of another.
enum class SumsIn { neither, forward, backward };
/// Collectives that leave memory of `rows` rows: collect_rows, exchange_rows; scatter_sum, which sums in
/// forward; gather_rows, which does in backward.
SizedValue move_rows(SizedTape& tape, const SizedValue& x, double rows,
                     SumsIn sums = SumsIn::neither);  // nothing
/// The same in two steps; what arrives is in memory from the start on, in backward its gradient likewise.
struct SizedArrival {
  struct Travelling {
    SizedBuffer sent, arriving;
  };
  double bytes_sent = 0, rows = 0, width = 0, element = 0;
  std::shared_ptr<Travelling> travelling;
};
SizedArrival start_moving_rows(SizedTape& tape, const SizedValue& x, double rows);
SizedValue finish_moving_rows(SizedTape& tape, const SizedArrival& travelling);
SizedValue sum_partial(SizedTape& tape, const SizedValue& x);             // nothing
SizedValue take_rows(SizedTape& tape, const SizedValue& x, double rows);  // shares x's memory

}  // namespace conclave
