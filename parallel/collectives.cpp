#include "parallel/collectives.h"

#include <numeric>
#include <utility>

namespace conclave {

namespace {

// Sums over ranks are made in sum_type: bfloat16 is widened before and rounded once after.

Tensor widened(const Tensor& x) {
  const Tensor wide = Tensor::empty(x.shape(), sum_type(x.dtype()), x.device());
  kernels_of(x).convert(x, wide);
  return wide;
}

/// x = the sum over the ranks of the axis, in place.
void reduce(const Tensor& x, Communicator& axis, Purpose purpose) {
  if (x.dtype() == sum_type(x.dtype())) return axis.all_reduce(x, ReduceOp::sum, purpose);
  const Tensor wide = widened(x);
  axis.all_reduce(wide, ReduceOp::sum, purpose);
  kernels_of(x).convert(wide, x);
}

/// This rank's rows of the sum over the ranks of the axis; x [size * rows, ...].
Tensor reduced_rows(const Tensor& x, Communicator& axis, Purpose purpose) {
  const Shape own = x.shape().with(0, x.shape()[0] / axis.size());
  const Tensor sum = Tensor::empty(own, x.dtype(), x.device());
  if (x.dtype() == sum_type(x.dtype())) {
    axis.reduce_scatter_rows(x, sum, purpose);
    return sum;
  }
  const Tensor wide_sum = Tensor::empty(own, sum_type(x.dtype()), x.device());
  axis.reduce_scatter_rows(widened(x), wide_sum, purpose);
  kernels_of(x).convert(wide_sum, sum);
  return sum;
}

}  // namespace

// What Gradient::take() hands out belongs to nobody else, so backward may reduce it in place; a forward value
// may still be read by the op that made it, so forward reduces a copy.

Variable enter_parallel(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Variable y = tape.output(x.value);
  tape.record("enter_parallel", [x_gradient = x.gradient, y_gradient = y.gradient, &axis, purpose] {
    const Tensor sum = y_gradient.take();
    reduce(sum, axis, purpose);
    x_gradient.add(sum);
  });
  return y;
}

Variable sum_partial(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Variable y = tape.output(x.value.clone());
  reduce(y.value, axis, purpose);
  tape.record("sum_partial",
              [x_gradient = x.gradient, y_gradient = y.gradient] { x_gradient.add(y_gradient.take()); });
  return y;
}

Variable gather_rows(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Shape own = x.value.shape();
  check(own.dims() > 0, "gather_rows: x has no rows dim on communicator ", axis.name());
  const Variable y =
      tape.output(Tensor::empty(own.with(0, own[0] * axis.size()), x.value.dtype(), x.value.device()));
  axis.all_gather_rows(x.value, y.value, purpose);
  tape.record("gather_rows", [x_gradient = x.gradient, y_gradient = y.gradient, &axis, purpose] {
    x_gradient.add(reduced_rows(y_gradient.take(), axis, purpose));
  });
  return y;
}

Variable scatter_sum(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Shape all = x.value.shape();
  check(all.dims() > 0 && all[0] % axis.size() == 0, "scatter_sum: x is ", all,
        ", its rows do not divide over the ", axis.size(), " ranks of communicator ", axis.name());
  const Variable y = tape.output(reduced_rows(x.value, axis, purpose));
  tape.record("scatter_sum", [all, x_gradient = x.gradient, y_gradient = y.gradient, &axis, purpose] {
    const Tensor own = y_gradient.take();
    const Tensor gathered = Tensor::empty(all, own.dtype(), own.device());
    axis.all_gather_rows(own, gathered, purpose);
    x_gradient.add(gathered);
  });
  return y;
}

Variable take_rows(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Shape all = x.value.shape();
  check(all.dims() > 0 && all[0] % axis.size() == 0, "take_rows: x is ", all,
        ", its rows do not divide over the ", axis.size(), " ranks of communicator ", axis.name());
  const std::int64_t rows = all[0] / axis.size();
  const Variable y = tape.output(x.value.slice(axis.rank() * rows, (axis.rank() + 1) * rows));
  tape.record("take_rows", [all, x_gradient = x.gradient, y_gradient = y.gradient, &axis, purpose] {
    const Tensor own = y_gradient.take();
    const Tensor gathered = Tensor::empty(all, own.dtype(), own.device());
    axis.all_gather_rows(own, gathered, purpose);
    x_gradient.add(gathered);
  });
  return y;
}

Variable collect_rows(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Shape own = x.value.shape();
  check(own.dims() > 0, "collect_rows: x has no rows dim on communicator ", axis.name());
  const Variable y =
      tape.output(Tensor::empty(own.with(0, own[0] * axis.size()), x.value.dtype(), x.value.device()));
  axis.all_gather_rows(x.value, y.value, purpose);
  // dy is the same on every rank and meant once, so each rank keeps its rows: no sum, and no collective.
  tape.record("collect_rows", [own, x_gradient = x.gradient, y_gradient = y.gradient, rank = axis.rank()] {
    const Tensor all = y_gradient.take();
    x_gradient.add(all.slice(rank * own[0], (rank + 1) * own[0]).clone());
  });
  return y;
}

Variable exchange_rows(Tape& tape, const Variable& x, const RowCounts& send_rows,
                       const RowCounts& receive_rows, Communicator& axis, Purpose purpose) {
  return finish_exchange_rows(tape, start_exchange_rows(tape, x, send_rows, receive_rows, axis, purpose));
}

struct PendingRows::Exchange {
  Shape sent;
  RowCounts send_rows, receive_rows;
  Communicator& axis;
  Purpose purpose;
  // For the rows, and in backward for their gradients:
  Tensor arriving;
  Request request;
  bool finished = false;  // in forward
};

PendingRows start_exchange_rows(Tape& tape, const Variable& x, const RowCounts& send_rows,
                                const RowCounts& receive_rows, Communicator& axis, Purpose purpose) {
  PendingRows pending;
  if (axis.size() == 1) {
    pending.here = x;
    return pending;
  }
  const Shape sent = x.value.shape();
  check(sent.dims() > 0, "start_exchange_rows: x has no rows dim on communicator ", axis.name());
  const std::int64_t rows = std::accumulate(receive_rows.begin(), receive_rows.end(), std::int64_t{0});
  const Tensor arriving = Tensor::empty(sent.with(0, rows), x.value.dtype(), x.value.device());
  pending.exchange = std::make_shared<PendingRows::Exchange>(
      PendingRows::Exchange{sent, send_rows, receive_rows, axis, purpose, arriving,
                            axis.start_all_to_all_rows(x.value, send_rows, arriving, receive_rows, purpose)});
  tape.record("start_exchange_rows", [exchange = pending.exchange, x_gradient = x.gradient] {
    check(exchange->finished, "start_exchange_rows: backward came, but forward never finished this exchange");
    exchange->request.wait();
    x_gradient.add(std::exchange(exchange->arriving, Tensor()));
  });
  return pending;
}

Variable finish_exchange_rows(Tape& tape, const PendingRows& pending) {
  if (!pending.exchange) return pending.here;
  PendingRows::Exchange& forward = *pending.exchange;
  check(!forward.finished, "finish_exchange_rows: this exchange is finished already");
  forward.request.wait();
  forward.finished = true;
  const Variable y = tape.output(std::exchange(forward.arriving, Tensor()));
  tape.record("finish_exchange_rows", [exchange = pending.exchange, y_gradient = y.gradient] {
    const Tensor leaving = y_gradient.take();
    exchange->arriving = Tensor::empty(exchange->sent, leaving.dtype(), leaving.device());
    exchange->request = exchange->axis.start_all_to_all_rows(
        leaving, exchange->receive_rows, exchange->arriving, exchange->send_rows, exchange->purpose);
  });
  return y;
}

}  // namespace conclave
