// The differentiable collectives: forward against a direct evaluation, backward by the adjoint identity
// <C x, y> = <x, C* y>, in float64 on the CPU and in float32 on other devices. The inner product of sharded,
// partial and replicated values sums over ranks; an invariant value, the same on every rank, counts once.
// Planted duals show that the identity tells right from wrong.
#include "parallel/collectives.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "framework/autograd/ops/elementwise.h"
#include "framework/base/random.h"
#include "tests/mpi_world.h"
#include "tests/parallel/mirror_communicator.h"

namespace conclave {
namespace {

constexpr Purpose purpose = Purpose::activations;

enum class Holds { same, own };  // an invariant value, or one of each rank's own

using Op = std::function<Variable(Tape&, const Variable&, Communicator&)>;

Tensor random_tensor(const char* name, Shape shape, Holds holds, const Communicator& ranks, Device& device) {
  const RandomKey key =
      RandomKey(5).with(name).with(holds == Holds::own ? static_cast<std::uint64_t>(ranks.rank()) : 0);
  std::vector<double> values;
  for (std::int64_t i = 0; i < shape.elements(); ++i)
    values.push_back(key.normal(static_cast<std::uint64_t>(i)));
  if (device.kind() == DeviceKind::cpu) return Tensor::from(values, shape);
  return Tensor::from(std::vector<float>(values.begin(), values.end()), shape, device);
}

std::vector<double> values_of(const Tensor& tensor) {
  if (tensor.dtype() == DType::float64) return tensor.to_host<double>();
  const auto values = tensor.to_host<float>();
  return {values.begin(), values.end()};
}

double tolerance_on(const Device& device) {
  return device.kind() == DeviceKind::cpu ? 1e-13 : 1e-5;
}

double inner_product(const Tensor& a, const Tensor& b, Holds holds, Communicator& ranks) {
  const auto x = values_of(a), y = values_of(b);
  const Tensor sum =
      Tensor::from(std::vector<double>{std::inner_product(x.begin(), x.end(), y.begin(), 0.0)}, {1});
  ranks.all_reduce(sum, ReduceOp::sum, Purpose::agreement);
  return holds == Holds::same ? sum.item() / ranks.size() : sum.item();
}

/// |<C x, y> - <x, C* y>| / (1 + |<C x, y>|) for random x and y.
double adjoint_error(const Op& op, Shape x_shape, Holds x_holds, Holds y_holds, Communicator& ranks,
                     Device& device = cpu_device()) {
  Tape tape;
  const Tensor value = random_tensor("x", x_shape, x_holds, ranks, device);
  const Variable x{value.clone(), Gradient::of(value)};
  const Variable output = op(tape, x, ranks);
  const Tensor y = random_tensor("y", output.value.shape(), y_holds, ranks, device);
  const double forward = inner_product(output.value, y, y_holds, ranks);
  output.gradient.add(y.clone());
  tape.backward();
  const double backward = inner_product(value, x.gradient.take(), x_holds, ranks);
  return std::abs(forward - backward) / (1 + std::abs(forward));
}

/// Uneven: rank `from` keeps what `pattern` says, none at all in many places.
struct Exchange {
  RowCounts send, receive;
  std::int64_t rows = 0;
};
Exchange exchange_of(const Communicator& ranks, const std::function<std::int64_t(int, int)>& rows_from_to) {
  Exchange exchange;
  for (int r = 0; r < ranks.size(); ++r) {
    exchange.rows += exchange.send.emplace_back(rows_from_to(ranks.rank(), r));
    exchange.receive.push_back(rows_from_to(r, ranks.rank()));
  }
  return exchange;
}
const std::function<std::int64_t(int, int)> patterns[] = {
    [](int from, int to) { return (from * 3 + to * 5) % 4; },
    [](int, int to) { return to == 0 ? 6 : 0; },      // all to one rank
    [](int from, int) { return from == 0 ? 3 : 0; },  // one rank has all
    [](int, int) { return 0; },
};

const Op enter = [](Tape& tape, const Variable& x, Communicator& axis) {
  return enter_parallel(tape, x, axis, purpose);
};
const Op sum = [](Tape& tape, const Variable& x, Communicator& axis) {
  return sum_partial(tape, x, axis, purpose);
};
const Op gather = [](Tape& tape, const Variable& x, Communicator& axis) {
  return gather_rows(tape, x, axis, purpose);
};
const Op scatter = [](Tape& tape, const Variable& x, Communicator& axis) {
  return scatter_sum(tape, x, axis, purpose);
};
const Op take = [](Tape& tape, const Variable& x, Communicator& axis) {
  return take_rows(tape, x, axis, purpose);
};
const Op collect = [](Tape& tape, const Variable& x, Communicator& axis) {
  return collect_rows(tape, x, axis, purpose);
};
Op exchange_op(const Exchange& exchange) {
  return [exchange](Tape& tape, const Variable& x, Communicator& axis) {
    return exchange_rows(tape, x, exchange.send, exchange.receive, axis, purpose);
  };
}
/// Two exchanges under way at once, finished in the order in which they began or in reverse: together twice
/// one.
Op crossing_exchanges_op(const Exchange& exchange, bool reversed) {
  return [exchange, reversed](Tape& tape, const Variable& x, Communicator& axis) {
    const auto start = [&] {
      return start_exchange_rows(tape, x, exchange.send, exchange.receive, axis, purpose);
    };
    const PendingRows first = start(), second = start();
    const Variable a = finish_exchange_rows(tape, reversed ? second : first);
    const Variable b = finish_exchange_rows(tape, reversed ? first : second);
    return add(tape, a, b);
  };
}

TEST(Collectives, backward_is_the_adjoint_of_forward) {
  for (Device* device : test::mpi_devices())
    for (const auto& ranks : {test::mpi_world(), self_communicator()}) {
      const double most = tolerance_on(*device);
      const std::int64_t size = ranks->size();
      for (const std::int64_t rows : {0, 1, 5}) {
        EXPECT_LT(adjoint_error(enter, {rows, 3}, Holds::same, Holds::own, *ranks, *device), most);
        EXPECT_LT(adjoint_error(sum, {rows, 3}, Holds::own, Holds::same, *ranks, *device), most);
        EXPECT_LT(adjoint_error(gather, {rows, 3}, Holds::own, Holds::own, *ranks, *device), most);
        EXPECT_LT(adjoint_error(scatter, {size * rows, 3}, Holds::own, Holds::own, *ranks, *device), most);
        EXPECT_LT(adjoint_error(take, {size * rows, 3}, Holds::same, Holds::own, *ranks, *device), most);
        EXPECT_LT(adjoint_error(collect, {rows, 3}, Holds::own, Holds::same, *ranks, *device), most);
      }
      for (const auto& pattern : patterns) {
        const Exchange exchange = exchange_of(*ranks, pattern);
        for (const Op& op : {exchange_op(exchange), crossing_exchanges_op(exchange, false),
                             crossing_exchanges_op(exchange, true)})
          EXPECT_LT(adjoint_error(op, {exchange.rows, 3}, Holds::own, Holds::own, *ranks, *device), most);
      }
    }
}

// --- planted duals: each is a mistake that has been made somewhere
// -----------------------------------------------

TEST(Collectives, adjoint_check_sees_a_gradient_averaged_over_ranks) {
  const Op averaged = [](Tape& tape, const Variable& x, Communicator& axis) {
    const Variable y = tape.output(x.value);
    tape.record("averaged", [x_gradient = x.gradient, y_gradient = y.gradient, &axis] {
      const Tensor total = y_gradient.take();
      axis.all_reduce(total, ReduceOp::sum, purpose);
      for (std::int64_t i = 0; i < total.elements(); ++i) total.data<double>()[i] /= axis.size() + 1;
      x_gradient.add(total);
    });
    return y;
  };
  EXPECT_GT(adjoint_error(averaged, {5, 3}, Holds::same, Holds::own, *test::mpi_world()), 1e-3);
}

TEST(Collectives, adjoint_check_sees_a_sum_whose_backward_sums_again) {
  if (test::mpi_world()->size() == 1) GTEST_SKIP() << "one rank sums nothing";
  const Op summed_twice = [](Tape& tape, const Variable& x, Communicator& axis) {
    return sum_partial(tape, enter_parallel(tape, x, axis, purpose), axis, purpose);
  };
  EXPECT_GT(adjoint_error(summed_twice, {5, 3}, Holds::own, Holds::same, *test::mpi_world()), 1e-3);
}

TEST(Collectives, adjoint_check_sees_a_gather_that_forgets_the_other_ranks) {
  if (test::mpi_world()->size() == 1) GTEST_SKIP() << "one rank has no others";
  const Op forgetful = [](Tape& tape, const Variable& x, Communicator& axis) {
    Tape silent(Tape::Mode::forward_only);
    const Variable y = tape.output(gather_rows(silent, x, axis, purpose).value);
    tape.record("forgetful",
                [x_gradient = x.gradient, y_gradient = y.gradient, rows = x.value.rows(), &axis] {
                  x_gradient.add(y_gradient.take().slice(axis.rank() * rows, (axis.rank() + 1) * rows));
                });
    return y;
  };
  EXPECT_GT(adjoint_error(forgetful, {5, 3}, Holds::own, Holds::own, *test::mpi_world()), 1e-3);
}

// --- forward
// -----------------------------------------------------------------------------------------------------

TEST(Collectives, forward_does_what_the_table_says_and_leaves_x_alone) {
  Communicator& world = *test::mpi_world();
  const std::int64_t size = world.size();
  Tape tape;
  const auto of_rank = [&](std::int64_t rank, std::int64_t rows) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < rows * 2; ++i) values.push_back(static_cast<double>(100 * rank + i));
    return values;
  };
  const auto variable = [&](std::int64_t rows) {
    const Tensor value = Tensor::from(of_rank(world.rank(), rows), {rows, 2});
    return Variable{value, Gradient::of(value)};
  };
  const Variable x = variable(2 * size);
  std::vector<double> total(x.value.to_host<double>().size(), 0.0), all;
  for (std::int64_t r = 0; r < size; ++r) {
    const auto values = of_rank(r, 2 * size);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += values[i];
    all.insert(all.end(), values.begin(), values.end());
  }
  EXPECT_EQ(enter_parallel(tape, x, world, purpose).value.to_host<double>(), of_rank(world.rank(), 2 * size));
  EXPECT_EQ(sum_partial(tape, x, world, purpose).value.to_host<double>(), total);
  EXPECT_EQ(gather_rows(tape, x, world, purpose).value.to_host<double>(), all);
  const auto own = total.begin() + 4 * world.rank();
  EXPECT_EQ(scatter_sum(tape, x, world, purpose).value.to_host<double>(), std::vector<double>(own, own + 4));
  const Exchange exchange = exchange_of(world, [](int, int) { return 2; });
  std::vector<double> exchanged;
  for (std::int64_t r = 0; r < size; ++r)
    for (int i = 0; i < 4; ++i) exchanged.push_back(static_cast<double>(100 * r + 4 * world.rank() + i));
  EXPECT_EQ(exchange_rows(tape, x, exchange.send, exchange.receive, world, purpose).value.to_host<double>(),
            exchanged);
  EXPECT_EQ(x.value.to_host<double>(), of_rank(world.rank(), 2 * size));
}

TEST(Collectives, backward_meets_its_partners_when_no_gradient_arrived_here) {
  Communicator& world = *test::mpi_world();
  const Tensor value = Tensor::zeros({3, 2}, DType::float64);
  const Variable x{value, Gradient::of(value)};
  Tape tape;
  const Variable y = enter_parallel(tape, x, world, purpose);
  const Variable rows = gather_rows(tape, y, world, purpose);
  // Only the last rank has a gradient; the others would leave it waiting if they skipped their collectives.
  if (world.rank() == world.size() - 1)
    rows.gradient.add(
        Tensor::from(std::vector<double>(rows.value.to_host<double>().size(), 1.0), rows.value.shape()));
  tape.backward();
  EXPECT_EQ(x.gradient.take().to_host<double>(), std::vector<double>(6, world.size()));
}

// --- exchanges in two steps
// -----------------------------------------------------------------------------------------------------

TEST(Collectives, work_between_start_and_finish_is_done_while_rows_travel_both_ways) {
  using Words = std::vector<std::string>;
  test::Log log;
  test::MirrorCommunicator ranks(log);
  const auto work = [&](Tape& tape) {
    log.write("work");
    tape.record("work", [&log] { log.write("work of backward"); });
  };
  const Tensor value = Tensor::from(std::vector<double>{1, 2, 3}, {3, 1});
  const Variable x{value, Gradient::of(value)};
  Tape tape;
  const PendingRows pending = start_exchange_rows(tape, x, {1, 2}, {1, 2}, ranks, purpose);
  work(tape);
  const Variable y = finish_exchange_rows(tape, pending);
  EXPECT_EQ(test::words_of(log.take()), (Words{"start 0", "work", "wait 0"}));
  EXPECT_EQ(y.value.to_host<double>(), (std::vector<double>{1, 2, 3}));

  const Tensor dy = Tensor::from(std::vector<double>{4, 5, 6}, {3, 1});
  y.gradient.add(dy);
  tape.backward();
  EXPECT_EQ(test::words_of(log.take()), (Words{"start 1", "work of backward", "wait 1"}));
  EXPECT_EQ(x.gradient.take().to_host<double>(), (std::vector<double>{4, 5, 6}));

  // In one step nothing lies between.
  exchange_rows(tape, x, {1, 2}, {1, 2}, ranks, purpose);
  work(tape);
  tape.backward();
  EXPECT_EQ(test::words_of(log.take()),
            (Words{"start 2", "wait 2", "work", "work of backward", "start 3", "wait 3"}));
}

TEST(Collectives, an_exchange_is_finished_once) {
  test::Log log;
  test::MirrorCommunicator ranks(log);
  const Tensor value = Tensor::zeros({2, 1}, DType::float64);
  const Variable x{value, Gradient::of(value)};
  Tape tape;
  const PendingRows pending = start_exchange_rows(tape, x, {1, 1}, {1, 1}, ranks, purpose);
  finish_exchange_rows(tape, pending);
  EXPECT_THROW(finish_exchange_rows(tape, pending), Error);
  Tape forgetful;
  start_exchange_rows(forgetful, x, {1, 1}, {1, 1}, ranks, purpose);
  EXPECT_THROW(forgetful.backward(), Error);
}

}  // namespace
}  // namespace conclave
