#include "parallel/collectives.h"

#include <numeric>
#include <utility>

namespace conclave {

// What Gradient::take() hands out belongs to nobody else, so backward may reduce it in place; a forward value
// may still be read by the op that made it, so forward reduces a copy.

Variable enter_parallel(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Variable y = tape.output(x.value);
  tape.record("enter_parallel", [x_gradient = x.gradient, y_gradient = y.gradient, &axis, purpose] {
    const Tensor sum = y_gradient.take();
    axis.all_reduce(sum, ReduceOp::sum, purpose);
    x_gradient.add(sum);
  });
  return y;
}

Variable sum_partial(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Variable y = tape.output(x.value.clone());
  axis.all_reduce(y.value, ReduceOp::sum, purpose);
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
  tape.record("gather_rows", [own, x_gradient = x.gradient, y_gradient = y.gradient, &axis, purpose] {
    const Tensor all = y_gradient.take();
    const Tensor sum = Tensor::empty(own, all.dtype(), all.device());
    axis.reduce_scatter_rows(all, sum, purpose);
    x_gradient.add(sum);
  });
  return y;
}

Variable scatter_sum(Tape& tape, const Variable& x, Communicator& axis, Purpose purpose) {
  if (axis.size() == 1) return x;
  const Shape all = x.value.shape();
  check(all.dims() > 0 && all[0] % axis.size() == 0, "scatter_sum: x is ", all,
        ", its rows do not divide over the ", axis.size(), " ranks of communicator ", axis.name());
  const Variable y =
      tape.output(Tensor::empty(all.with(0, all[0] / axis.size()), x.value.dtype(), x.value.device()));
  axis.reduce_scatter_rows(x.value, y.value, purpose);
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
  // Of the rows, and in backward of their gradients:
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
