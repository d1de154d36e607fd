#include "framework/autograd/tape.h"

#include <utility>

#include "framework/device/named_range.h"

namespace conclave {

Gradient Gradient::of(const Tensor& value) {
  Gradient gradient;
  gradient.state_ = std::make_shared<State>();
  gradient.state_->shape = value.shape();
  gradient.state_->dtype = value.dtype();
  gradient.state_->device = &value.device();
  return gradient;
}

Gradient Gradient::stored_in(Tensor storage) {
  Gradient gradient = of(storage);
  gradient.state_->sum = std::move(storage);
  gradient.state_->stored = true;
  return gradient;
}

void Gradient::add(Tensor contribution) const {
  if (!needed()) return;
  check_tensor(contribution, "Gradient::add", "contribution", state_->shape, state_->dtype);
  if (state_->empty && !state_->stored) {
    state_->sum = std::move(contribution);
    state_->empty = false;
    return;
  }
  const Target into = target();
  if (into.write == Write::overwrite)
    into.tensor.copy_from(contribution);
  else
    kernels_of(contribution).add_scaled(contribution, 1.0, into.tensor);
}

Gradient::Target Gradient::target() const {
  check(needed(), "Gradient::target: nobody needs this gradient");
  if (!state_->sum.defined()) state_->sum = Tensor::empty(state_->shape, state_->dtype, *state_->device);
  const Write write = state_->empty ? Write::overwrite : Write::accumulate;
  state_->empty = false;
  return {state_->sum, write};
}

Tensor Gradient::take() const {
  check(needed() && !state_->stored, "Gradient::take: not the gradient of an intermediate value");
  Tensor gathered = std::exchange(state_->sum, Tensor());
  if (state_->empty) gathered = Tensor::zeros(state_->shape, state_->dtype, *state_->device);
  state_->empty = true;
  return gathered;
}

Tensor Gradient::finished() const {
  check(needed() && state_->stored, "Gradient::finished: not the gradient of a parameter");
  if (state_->empty) state_->sum.fill_zero();
  state_->empty = false;
  return state_->sum;
}

void Gradient::clear() const {
  if (needed()) state_->empty = true;
}

void Gradient::when_complete(std::function<void()> callback) const {
  check(needed(), "Gradient::when_complete: nobody needs this gradient");
  state_->complete = std::move(callback);
}

Tape Tape::first_run_of(Tape& parent) {
  return Tape(Mode::forward_only, &parent, true);
}
Tape Tape::replay() {
  return Tape(Mode::record, nullptr, false);
}

Variable Tape::output(Tensor value) const {
  Variable variable{std::move(value), {}};
  if (recording()) variable.gradient = Gradient::of(variable.value);
  return variable;
}

void Tape::record(const char* op, std::function<void()> backward) {
  if (recording()) entries_.push_back({op, std::move(backward)});
}

void Tape::watch(const Gradient& gradient) {
  if (!gradient.needed() || !marks_) return;
  if (parent_ != nullptr) return parent_->watch(gradient);
  if (!recording() || !watched_.insert(gradient.state_.get()).second) return;
  record("gradient complete", [gradient] {
    if (gradient.state_->complete) gradient.state_->complete();
  });
}

void Tape::backward(const Variable& loss) {
  check(loss.value.dtype() == DType::float64 && loss.value.elements() == 1,
        "Tape::backward: a loss is one float64 element, ", name_of(loss.value.dtype()), " ",
        loss.value.shape(), " came");
  loss.gradient.add(Tensor::from(std::vector<double>{1.0}, loss.value.shape(), loss.value.device()));
  backward();
}

void Tape::backward() {
  while (!entries_.empty()) {
    const Entry entry = std::move(entries_.back());
    entries_.pop_back();
    const NamedRange range(entry.op);
    entry.backward();
  }
  watched_.clear();
}

std::vector<Variable> recompute(
    Tape& tape, const std::vector<Variable>& inputs,
    std::function<std::vector<Variable>(Tape&, const std::vector<Variable>&, SegmentRun)> body) {
  if (!tape.recording()) return body(tape, inputs, SegmentRun::first);
  std::vector<Variable> outputs;
  std::vector<Gradient> gradients;
  {
    Tape first = Tape::first_run_of(tape);
    for (const Variable& result : body(first, inputs, SegmentRun::first)) {
      outputs.push_back(tape.output(result.value));
      gradients.push_back(outputs.back().gradient);
    }
  }
  tape.record("recompute", [inputs, gradients, body = std::move(body)] {
    Tape again = Tape::replay();
    std::vector<Variable> results = body(again, inputs, SegmentRun::replay);
    check(results.size() == gradients.size(), "recompute: the segment gave ", results.size(),
          " outputs when replayed, ", gradients.size(), " the first time");
    for (std::size_t i = 0; i < results.size(); ++i) results[i].gradient.add(gradients[i].take());
    results.clear();  // what backward needs of the values, the tape keeps
    again.backward();
  });
  return outputs;
}

}  // namespace conclave
