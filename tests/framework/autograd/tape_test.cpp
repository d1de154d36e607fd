// The tape: recomputed segments give the same bits, completed gradients are reported once and last, nothing
// is kept when nothing is recorded, and backward lets go of memory as it proceeds.
#include "framework/autograd/tape.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "framework/autograd/ops/elementwise.h"
#include "framework/autograd/ops/linear.h"
#include "framework/autograd/ops/vocabulary.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave::test {
namespace {

using Variables = std::vector<Variable>;

Variable parameter(std::string_view name, const Shape& shape) {
  const Tensor value = normal_tensor(name, shape);
  return {value, Gradient::stored_in(Tensor::empty(shape, DType::float64))};
}

std::vector<double> values_of(const Tensor& tensor) {
  return tensor.to_host<double>();
}

void seed(const Variable& output) {
  output.gradient.add(normal_tensor("seed", output.value.shape()));
}

/// Two linear layers with SwiGLU between; returns the output, the hidden values and one of the gates.
Variables segment(Tape& tape, const Variable& x, const Variable& one, const Variable& two) {
  tape.watch(one.gradient);
  tape.watch(two.gradient);
  const Variable gate = linear(tape, x, one), hidden = swiglu(tape, gate, gate);
  return {linear(tape, hidden, two), hidden, gate};
}

struct Gradients {
  std::vector<double> x, one, two, output;
  bool operator==(const Gradients&) const = default;
};

enum class Segment { kept, recomputed, recomputed_inside };

/// Runs the segment twice, with the same parameters, and uses the outputs named.
Gradients train(Segment how, const std::vector<std::size_t>& used, int* first_runs = nullptr,
                int* replays = nullptr) {
  const Variable x{normal_tensor("x", {5, 4}), Gradient::of(normal_tensor("x", {5, 4}))};
  const Variable one = parameter("one", {4, 4}), two = parameter("two", {4, 4});
  const auto body = [=](Tape& tape, const Variables& in, SegmentRun run) {
    if (first_runs != nullptr) ++*(run == SegmentRun::first ? first_runs : replays);
    if (how != Segment::recomputed_inside) return segment(tape, in[0], one, two);
    return recompute(tape, in, [=](Tape& inner, const Variables& again, SegmentRun) {
      return segment(inner, again[0], one, two);
    });
  };
  Tape tape;
  const auto apply = [&](const Variable& in) {
    return how == Segment::kept ? body(tape, {in}, SegmentRun::first) : recompute(tape, {in}, body);
  };
  const Variables middle = apply(x), end = apply(middle[0]);
  for (const std::size_t output : used) seed(end[output]);
  tape.backward();
  return {values_of(x.gradient.take()), values_of(one.gradient.finished()),
          values_of(two.gradient.finished()), values_of(end[0].value)};
}

TEST(Recompute, GivesTheSameBits) {
  for (const std::vector<std::size_t>& used : {std::vector<std::size_t>{0}, {0, 1, 2}, {1}, {2}}) {
    const Gradients kept = train(Segment::kept, used);
    EXPECT_EQ(kept, train(Segment::recomputed, used));
    EXPECT_EQ(kept, train(Segment::recomputed_inside, used));
    double largest = 0;
    for (const double value : kept.x) largest = std::max(largest, std::abs(value));
    EXPECT_GT(largest, 1e-3);
  }
}

TEST(Recompute, RunsTheBodyExactlyOnceMore) {
  int first_runs = 0, replays = 0;
  train(Segment::recomputed, {0}, &first_runs, &replays);
  EXPECT_EQ(first_runs, 2);  // two segments
  EXPECT_EQ(replays, 2);
}

TEST(Recompute, KeepsNoActivationsUntilBackward) {
  const Tensor x = normal_tensor("x", {64, 32});
  const Variable in{x, Gradient::of(x)}, weight = parameter("one", {32, 32});
  const auto body = [&](Tape& tape, const Variables& inputs, SegmentRun) {
    Variable y = inputs[0];
    for (int layer = 0; layer < 8; ++layer)
      y = swiglu(tape, linear(tape, y, weight), linear(tape, y, weight));
    return Variables{y};
  };
  const auto bytes_kept = [&](bool recomputed) {
    Tape tape;
    const std::size_t before = cpu_device().memory_use().live;
    const Variables out = recomputed ? recompute(tape, {in}, body) : body(tape, {in}, SegmentRun::first);
    return cpu_device().memory_use().live - before;
  };
  EXPECT_EQ(bytes_kept(true), x.bytes());  // the output alone
  EXPECT_GE(bytes_kept(false), 24 * x.bytes());
}

TEST(Recompute, RefusesASegmentThatChanges) {
  Tape tape;
  const Tensor x = normal_tensor("x", {2, 2});
  const Variable in{x, Gradient::of(x)};
  const Variables out = recompute(tape, {in}, [](Tape& inner, const Variables& inputs, SegmentRun run) {
    const Variable y = add(inner, inputs[0], inputs[0]);
    return run == SegmentRun::first ? Variables{y} : Variables{y, y};
  });
  seed(out[0]);
  EXPECT_THROW(tape.backward(), Error);
}

TEST(Recompute, WithoutRecordingRunsTheBodyOnce) {
  Tape tape(Tape::Mode::forward_only);
  int runs = 0;
  const Variable x{normal_tensor("x", {2, 2}), {}};
  const Variables out = recompute(tape, {x}, [&](Tape& inner, const Variables& in, SegmentRun run) {
    EXPECT_EQ(run, SegmentRun::first);
    ++runs;
    return Variables{add(inner, in[0], in[0])};
  });
  tape.backward();
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(out[0].gradient.needed());
}

/// Notes of a callback: how often it ran, and the gradient at that time.
struct Completion {
  int times = 0;
  std::vector<double> seen;
};

std::shared_ptr<Completion> listen(const Variable& variable) {
  auto completion = std::make_shared<Completion>();
  variable.gradient.when_complete([completion, storage = variable.gradient.finished()] {
    ++completion->times;
    completion->seen = values_of(storage);
  });
  variable.gradient.clear();
  return completion;
}

/// A parameter used before, inside and after a recomputed segment, and twice in one op.
TEST(Watch, ReportsOnceAfterAllContributions) {
  const Variable w = parameter("w", {4, 4}), inside_only = parameter("inside", {4, 4}),
                 unused = parameter("u", {4, 4});
  const auto done = listen(w), inside_done = listen(inside_only), never = listen(unused);
  for (int pass = 1; pass <= 2; ++pass) {
    const Variable x{normal_tensor("x", {3, 4}), Gradient::of(normal_tensor("x", {3, 4}))};
    Tape tape;
    const auto use = [](Tape& on, const Variable& in, const Variable& weight) {
      on.watch(weight.gradient);
      return linear(on, in, weight);
    };
    const Variable before = use(tape, x, w);
    const Variables middle = recompute(tape, {before}, [&](Tape& inner, const Variables& in, SegmentRun) {
      return Variables{use(inner, use(inner, in[0], inside_only), w)};
    });
    seed(swiglu(tape, use(tape, middle[0], w), use(tape, middle[0], w)));
    EXPECT_EQ(done->times, pass - 1) << "before backward";
    tape.backward();
    EXPECT_EQ(done->times, pass);
    EXPECT_EQ(inside_done->times, pass);
    EXPECT_EQ(done->seen, values_of(w.gradient.finished()));
    EXPECT_EQ(inside_done->seen, values_of(inside_only.gradient.finished()));
  }
  EXPECT_EQ(never->times, 0);
}

TEST(Watch, ReportsAParameterFirstUsedInsideASegmentAndLaterOutside) {
  const Variable w = parameter("w", {4, 4});
  const auto done = listen(w);
  const Variable x{normal_tensor("x", {3, 4}), Gradient::of(normal_tensor("x", {3, 4}))};
  Tape tape;
  const auto body = [&](Tape& inner, const Variables& in, SegmentRun) {
    inner.watch(w.gradient);
    return Variables{linear(inner, in[0], w)};
  };
  const auto nested = [&](Tape& inner, const Variables& in, SegmentRun) {
    return recompute(inner, in, body);
  };
  const Variables first = recompute(tape, {x}, nested), second = recompute(tape, first, body);
  tape.watch(w.gradient);
  seed(linear(tape, second[0], w));
  tape.backward();
  EXPECT_EQ(done->times, 1);
  EXPECT_EQ(done->seen, values_of(w.gradient.finished()));
}

TEST(Watch, ReportsInReverseOrderOfFirstUse) {
  std::string order;
  Variables weights;
  for (const char* name : {"a", "b", "c"}) {
    weights.push_back(parameter(name, {4, 4}));
    weights.back().gradient.when_complete([&order, name] { order += name; });
  }
  const Tensor x = normal_tensor("x", {3, 4});
  Tape tape;
  Variable y{x, Gradient::of(x)};
  for (const int use : {0, 1, 2, 1}) {
    tape.watch(weights[static_cast<std::size_t>(use)].gradient);
    y = linear(tape, y, weights[static_cast<std::size_t>(use)]);
  }
  seed(y);
  tape.backward();
  EXPECT_EQ(order, "cba");
}

TEST(Tape, ForwardOnlyKeepsNothing) {
  const Variable x{normal_tensor("x", {64, 32}), {}}, w = parameter("w", {32, 32});
  const std::size_t before = cpu_device().memory_use().live;
  Tape tape(Tape::Mode::forward_only);
  {
    Variable y = x;
    for (int layer = 0; layer < 5; ++layer) y = segment(tape, y, w, w)[0];
    EXPECT_FALSE(y.gradient.needed());
    EXPECT_EQ(cpu_device().memory_use().live, before + y.value.bytes());
    const Tensor targets = Tensor::zeros({64}, DType::int32);
    linear_cross_entropy(tape, y, w, targets, {});
  }
  EXPECT_EQ(cpu_device().memory_use().live, before);
  tape.backward();
  for (const double value : values_of(w.gradient.finished()))
    EXPECT_EQ(value, 0) << "evaluation left a gradient";
}

TEST(Tape, BackwardFreesCapturesAsItProceeds) {
  Tape tape;
  auto early = std::make_shared<int>(1), late = std::make_shared<int>(2);
  const std::weak_ptr<int> watched_late = late, watched_early = early;
  bool late_was_gone = false;
  tape.record("early", [keep = early, watched_late, &late_was_gone] {
    late_was_gone = watched_late.expired() && *keep == 1;
  });
  tape.record("late", [keep = late] { EXPECT_EQ(*keep, 2); });
  early.reset();
  late.reset();
  EXPECT_FALSE(watched_late.expired());
  tape.backward();
  EXPECT_TRUE(late_was_gone);
  EXPECT_TRUE(watched_early.expired());
}

TEST(Tape, MemoryReturnsAfterBackward) {
  const Variable w = parameter("w", {32, 32});
  const std::size_t before = cpu_device().memory_use().live;
  {
    Tape tape;
    const Tensor x = normal_tensor("x", {64, 32});
    Variable y{x, Gradient::of(x)};
    for (int layer = 0; layer < 5; ++layer) y = segment(tape, y, w, w)[0];
    seed(y);
    const std::size_t full = cpu_device().memory_use().live;
    tape.backward();
    EXPECT_LT(cpu_device().memory_use().live, full);
  }
  EXPECT_EQ(cpu_device().memory_use().live, before);
}

}  // namespace
}  // namespace conclave::test
