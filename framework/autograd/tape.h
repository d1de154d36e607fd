// Reverse-mode differentiation as an explicit list. An op computes its result, then records on the Tape the
// function that backward must replay. The function's captures are what backward keeps alive. Tape::backward
// runs the list in reverse and frees each entry's captures as soon as it has run. In a job of many ranks the
// reverse of the recorded order is the same on every rank. So collectives inside backward meet their partners
// by construction.
#pragma once

#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

#include "framework/device/profile.h"
#include "framework/kernels/kernels.h"
#include "framework/tensor/tensor.h"

namespace conclave {

/// Where the gradient of one value gathers; copies are handles to the same place. A default Gradient belongs
/// to a value that needs none.
class Gradient {
 public:
  Gradient() = default;
  /// The gradient of an intermediate value; memory is taken when the first contribution arrives.
  static Gradient of(const Tensor& value);
  /// The gradient of a parameter: contributions of many backward passes gather in `storage`. The storage
  /// keeps its place and may be of the sum_type of what contributes.
  static Gradient stored_in(Tensor storage);

  bool needed() const { return state_ != nullptr; }

  /// Adds a contribution; the first one is kept as it is, without a copy.
  void add(Tensor contribution) const;

  /// Memory that a kernel writes (first contribution) or adds to (later ones). Asking for it counts as a
  /// contribution.
  struct Target {
    Tensor tensor;
    Write write;
  };
  Target target() const;

  /// Hands out the gathered sum, or zeros when nothing contributed, and lets go of it.
  Tensor take() const;
  /// The sum in a parameter's storage; zeros are written first when nothing contributed.
  Tensor finished() const;
  /// Starts a new sum: the next contribution overwrites.
  void clear() const;

  /// Sets the callback that Tape::backward runs when all uses recorded on the tape have contributed; see
  /// Tape::watch.
  void when_complete(std::function<void()> callback) const;

 private:
  friend class Tape;
  struct State {
    Shape shape;
    DType dtype = DType::float32;
    Device* device = nullptr;
    Tensor sum;
    bool stored = false;
    bool empty = true;
    std::function<void()> complete;
  };
  std::shared_ptr<State> state_;
};

/// A tensor that takes part in differentiation.
struct Variable {
  Tensor value;
  Gradient gradient;
};

class Tape {
 public:
  enum class Mode {
    record,        // training
    forward_only,  // evaluation, counting passes: nothing is kept
  };
  explicit Tape(Mode mode = Mode::record) : mode_(mode) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape under which recompute() runs a segment the first time. It records nothing, but the first use of
  /// a parameter is still marked on `parent`.
  static Tape first_run_of(Tape& parent);
  /// The tape on which recompute() replays a segment inside the backward of its parent. It records, and
  /// leaves the marks of first use to the parent.
  static Tape replay();

  bool recording() const { return mode_ == Mode::record; }

  /// The result of an op, whose gradient is needed when the tape records.
  Variable output(Tensor value) const;

  /// Keeps `backward` for the reverse pass; without recording it is dropped at once, captures and all.
  void record(const char* op, std::function<void()> backward);

  /// Marks the first use of a parameter. Backward reaches this mark after every use recorded later, which is
  /// every use. The gradient is then complete, and its when_complete callback runs. So gradient reduction can
  /// start while the rest of backward goes on, without a count of uses.
  void watch(const Gradient& gradient);

  /// Runs backward from `loss` (float64, one element, gradient 1), then the tape is empty again.
  void backward(const Variable& loss);
  /// Runs backward from whatever gradients have been put in place.
  void backward();

 private:
  struct Entry {
    const char* op;
    std::function<void()> backward;
    Profile::Place place;
  };
  Tape(Mode mode, Tape* parent, bool marks) : mode_(mode), parent_(parent), marks_(marks) {}

  Mode mode_;
  Tape* parent_ = nullptr;
  bool marks_ = true;
  std::vector<Entry> entries_;
  std::unordered_set<const void*> watched_;
};

/// Runs body(tape, inputs) now without keeping its activations, and once more inside backward to
/// differentiate it. The body must compute the same from the same inputs both times. Its last argument says
/// which run it is in.
enum class SegmentRun { first, replay };
std::vector<Variable> recompute(
    Tape& tape, const std::vector<Variable>& inputs,
    std::function<std::vector<Variable>(Tape&, const std::vector<Variable>&, SegmentRun)> body);

}  // namespace conclave
