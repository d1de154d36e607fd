#include "parallel/collectives.h"

#include <numeric>

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
  if (axis.size() == 1) return x;
  const Shape sent = x.value.shape();
  check(sent.dims() > 0, "exchange_rows: x has no rows dim on communicator ", axis.name());
  const std::int64_t rows = std::accumulate(receive_rows.begin(), receive_rows.end(), std::int64_t{0});
  const Variable y = tape.output(Tensor::empty(sent.with(0, rows), x.value.dtype(), x.value.device()));
  axis.all_to_all_rows(x.value, send_rows, y.value, receive_rows, purpose);
  tape.record("exchange_rows", [sent, send_rows, receive_rows, x_gradient = x.gradient,
                                y_gradient = y.gradient, &axis, purpose] {
    const Tensor received = y_gradient.take();
    const Tensor returned = Tensor::empty(sent, received.dtype(), received.device());
    axis.all_to_all_rows(received, receive_rows, returned, send_rows, purpose);
    x_gradient.add(returned);
  });
  return y;
}

}  // namespace conclave
