#include "framework/recipe/memory_walk.h"

#include <algorithm>
#include <utility>

#include "framework/base/allocation_size.h"

namespace conclave {
namespace {

/// Gradient::add: the first contribution is kept as it is, later ones are added to it and let go.
void contribute(const std::shared_ptr<SizedBuffer>& gradient, const SizedBuffer& contribution) {
  if (gradient && !*gradient) *gradient = contribution;
}

}  // namespace

double allocated_bytes(double bytes) {
  constexpr double exact = 1e18;  // beyond, nobody minds an eighth
  return bytes < exact ? static_cast<double>(allocation_size(static_cast<std::size_t>(bytes))) : bytes;
}

SizedBuffer SizedTape::bytes(double count) const {
  const double taken = allocated_bytes(count);
  use_.live += taken;
  use_.peak = std::max(use_.peak, use_.live);
  return {static_cast<const void*>(this), [&use = use_, taken](const void*) { use.live -= taken; }};
}

SizedValue SizedTape::output(double rows, double width, double element) const {
  return output(rows, width, element, bytes(rows * width * element));
}

SizedValue SizedTape::output(double rows, double width, double element, const SizedBuffer& shared) const {
  return {rows, width, element, shared, recording() ? std::make_shared<SizedBuffer>() : nullptr};
}

void SizedTape::record(std::function<void()> backward) {
  if (recording()) entries_.push_back(std::move(backward));
}

void SizedTape::record(const std::vector<SizedInput>& inputs, const SizedValue& result,
                       std::vector<SizedBuffer> kept, double scratch) {
  if (!recording()) return;
  struct Input {
    double bytes;
    std::shared_ptr<SizedBuffer> gradient;
    Flow flow;
  };
  std::vector<Input> into;  // without the values: an op keeps only what it says
  for (const SizedInput& input : inputs)
    into.push_back({input.value.bytes(), input.value.gradient, input.flow});
  record([this, into, scratch, result_bytes = result.bytes(), gradient = result.gradient,
          held = std::move(kept)] {
    SizedBuffer dy = std::exchange(*gradient, nullptr);
    if (!dy) dy = bytes(result_bytes);  // Gradient::take: zeros
    const SizedBuffer work = scratch > 0 ? bytes(scratch) : nullptr;
    std::vector<SizedBuffer> fresh(into.size());
    for (std::size_t i = 0; i < into.size(); ++i)
      if (into[i].flow == Flow::fresh) fresh[i] = bytes(into[i].bytes);
    for (std::size_t i = 0; i < into.size(); ++i) {
      const Input& input = into[i];
      if (input.flow == Flow::in_place && input.gradient && !*input.gradient)
        *input.gradient = bytes(input.bytes);
      if (input.flow != Flow::in_place) contribute(input.gradient, input.flow == Flow::fresh ? fresh[i] : dy);
    }
  });
}

void SizedTape::backward() {
  while (!entries_.empty()) {
    const std::function<void()> entry = std::move(entries_.back());
    entries_.pop_back();
    entry();
  }
}

SizedValue SizedTape::recompute(const std::vector<SizedValue>& inputs, const Body& body) {
  if (!recording()) return body(*this, inputs);
  SizedValue result;
  {
    SizedTape first(use_, element_, sum_, Mode::forward_only);
    const SizedValue computed = body(first, inputs);
    result = output(computed.rows, computed.width, computed.element, computed.value);
  }
  record([this, inputs, body, gradient = result.gradient] {
    SizedTape again(use_, element_, sum_);
    {
      const SizedValue computed = body(again, inputs);
      contribute(computed.gradient, std::exchange(*gradient, nullptr));
    }
    again.backward();
  });
  return result;
}

// --- ops: framework/autograd/ops
// ----------------------------------------------------------------------------------

SizedValue to_sum_type(SizedTape& tape, const SizedValue& x) {
  if (x.element == tape.sum()) return x;
  const SizedValue y = tape.output(x.rows, x.width, tape.sum());
  tape.record({{x, Flow::fresh}}, y, {});
  return y;
}

SizedValue linear(SizedTape& tape, const SizedValue& x, double width) {
  const SizedValue y = tape.output(x.rows, width, x.element);
  tape.record({{x, Flow::in_place}}, y, {x.value});
  return y;
}

SizedValue rms_norm(SizedTape& tape, const SizedValue& x, double norms_per_row) {
  const SizedValue y = tape.output(x.rows, x.width, x.element);
  tape.record({{x, Flow::fresh}}, y, {x.value, tape.sums(x.rows * norms_per_row)});
  return y;
}

SizedValue rope(SizedTape& tape, const SizedValue& x) {
  const SizedValue y = tape.output(x.rows, x.width, x.element);
  tape.record({{x, Flow::fresh}}, y, {});
  return y;
}

SizedValue attention(SizedTape& tape, const SizedValue& query, const SizedValue& key, const SizedValue& value,
                     double heads, AttentionRoom room) {
  const SizedValue y = tape.output(query.rows, query.width, query.element);
  const SizedBuffer log_sum_exp = tape.sums(query.rows * heads);
  tape.sums(room.forward);
  tape.record({{query, Flow::fresh}, {key, Flow::fresh}, {value, Flow::fresh}}, y,
              {query.value, key.value, value.value, y.value, log_sum_exp}, room.backward * tape.sum());
  return y;
}

SizedValue add(SizedTape& tape, const SizedValue& a, const SizedValue& b) {
  const SizedValue y = tape.output(a.rows, a.width, a.element);
  tape.record({{b, Flow::fresh}, {a, Flow::handed_on}}, y, {});
  return y;
}

SizedValue swiglu(SizedTape& tape, const SizedValue& gate, const SizedValue& up) {
  const SizedValue y = tape.output(gate.rows, gate.width, gate.element);
  tape.record({{gate, Flow::fresh}, {up, Flow::fresh}}, y, {gate.value, up.value});
  return y;
}

SizedValue embedding(SizedTape& tape, double tokens, double hidden) {
  const SizedValue y = tape.output(tokens, hidden, tape.element());
  tape.record({}, y, {});
  return y;
}

SizedValue route(SizedTape& tape, const SizedValue& logits, double top_k, bool sigmoid, SizedBuffer& chosen) {
  chosen = tape.bytes(logits.rows * top_k * 4);
  const SizedValue weights = tape.output(logits.rows, top_k, logits.element);
  tape.record({{logits, Flow::fresh}}, weights,
              {chosen, weights.value, tape.sums(logits.elements()), tape.sums(logits.rows),
               sigmoid ? logits.value : nullptr});
  return weights;
}

SizedOrder sort_rows(SizedTape& tape, double slots, double rows) {
  return {{tape.bytes(slots * 4), tape.bytes(rows * 4), tape.bytes(rows * 4)}, rows};
}

SizedValue permute_rows(SizedTape& tape, const SizedValue& x, const SizedOrder& order) {
  const SizedValue y = tape.output(order.rows, x.width, x.element);
  tape.record({{x, Flow::fresh}}, y, order.buffers);
  return y;
}

SizedValue combine_rows(SizedTape& tape, const SizedValue& rows, const SizedValue& weights,
                        const SizedOrder& order) {
  const SizedValue y = tape.output(weights.rows, rows.width, rows.element);
  std::vector<SizedBuffer> kept = order.buffers;
  kept.push_back(rows.value);
  kept.push_back(weights.value);
  tape.record({{rows, Flow::fresh}, {weights, Flow::fresh}}, y, std::move(kept));
  return y;
}

SizedValue repeat_columns(SizedTape& tape, const SizedValue& x, double times) {
  if (times == 1) return x;
  const SizedValue y = tape.output(x.rows, x.width * times, x.element);
  tape.record({{x, Flow::in_place}}, y, {});
  return y;
}

// --- ops: parallel/collectives.h
// ----------------------------------------------------------------------------------

SizedValue move_rows(SizedTape& tape, const SizedValue& x, double rows, SumsIn sums) {
  const SizedValue y = tape.output(rows, x.width, x.element);
  const double widened = x.element == tape.sum() ? 0 : (x.rows + rows) * x.width * tape.sum();
  if (sums == SumsIn::forward && widened > 0) tape.bytes(widened);
  tape.record({{x, Flow::fresh}}, y, {}, sums == SumsIn::backward ? widened : 0);
  return y;
}

SizedArrival start_moving_rows(SizedTape& tape, const SizedValue& x, double rows) {
  SizedArrival made{x.bytes(), rows, x.width, x.element, std::make_shared<SizedArrival::Travelling>()};
  *made.travelling = {x.value, tape.bytes(rows * x.width * x.element)};
  tape.record([travelling = made.travelling, x_gradient = x.gradient] {
    travelling->sent = nullptr;
    contribute(x_gradient, std::exchange(travelling->arriving, nullptr));
  });
  return made;
}

SizedValue finish_moving_rows(SizedTape& tape, const SizedArrival& moved) {
  const SizedValue y =
      tape.output(moved.rows, moved.width, moved.element, std::exchange(moved.travelling->arriving, nullptr));
  moved.travelling->sent = nullptr;
  tape.record([&tape, moved, y_gradient = y.gradient] {
    moved.travelling->sent = std::exchange(*y_gradient, nullptr);
    moved.travelling->arriving = tape.bytes(moved.bytes_sent);
  });
  return y;
}

SizedValue sum_partial(SizedTape& tape, const SizedValue& x) {
  const SizedValue y = tape.output(x.rows, x.width, x.element);
  if (x.element != tape.sum()) tape.sums(x.elements());
  tape.record({{x, Flow::handed_on}}, y, {});
  return y;
}

SizedValue take_rows(SizedTape& tape, const SizedValue& x, double rows) {
  const SizedValue y = tape.output(rows, x.width, x.element, x.value);
  tape.record({{x, Flow::fresh}}, y, {});
  return y;
}

}  // namespace conclave
