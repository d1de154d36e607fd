// The collectives as differentiable ops, named by what they do to a value along a mesh axis:
//   - An invariant value is the same on every rank, and counted once.
//   - A replicated value has a copy on every rank, each used differently.
//   - A partial value has a term on every rank, whose sum is meant.
//   - A sharded value has its own rows on every rank.
// The backward of each op is its adjoint under these meanings, so no gradient is ever divided by a rank
// count. Backward always issues its collective, also where no gradient has arrived, because the partners wait
// for it. On an axis of one rank all of them hand x through.
#pragma once

#include <memory>

#include "framework/autograd/tape.h"
#include "parallel/communicator.h"

namespace conclave {

/// invariant -> replicated:  y_r = x;  dx = sum over r of dy_r
Variable enter_parallel(Tape& tape, const Variable& x,  // [...]
                        Communicator& axis, Purpose purpose);

/// partial -> invariant:  y = sum over r of x_r;  dx_r = dy
Variable sum_partial(Tape& tape, const Variable& x,  // [...]
                     Communicator& axis, Purpose purpose);

/// sharded -> replicated:  y_r = (x_0, x_1, ...) [size * rows, ...];  dx_r = rows of r in (sum over s of
/// dy_s)
Variable gather_rows(Tape& tape, const Variable& x,  // [rows, ...], as many on every rank
                     Communicator& axis, Purpose purpose);

/// partial -> sharded:  y_r = rows of r in (sum over s of x_s) [rows, ...];  dx_s = (dy_0, dy_1, ...)
Variable scatter_sum(Tape& tape, const Variable& x,  // [size * rows, ...]
                     Communicator& axis, Purpose purpose);

/// invariant -> sharded:  y_r = rows of r in x;  dx = (dy_0, dy_1, ...)
Variable take_rows(Tape& tape, const Variable& x,  // [size * rows, ...]  ->  [rows, ...]
                   Communicator& axis, Purpose purpose);

/// sharded -> invariant:  y = (x_0, x_1, ...) [size * rows, ...];  dx_r = rows of r in dy
Variable collect_rows(Tape& tape, const Variable& x,  // [rows, ...], as many on every rank
                      Communicator& axis, Purpose purpose);

/// sharded -> sharded:  y_r = (rows for r of x_0, of x_1, ...) [sum of receive_rows, ...];  dx: the rows of
/// dy go back
Variable exchange_rows(Tape& tape, const Variable& x,  // [sum of send_rows, ...], sorted by receiving rank
                       const RowCounts& send_rows,     // [size]
                       const RowCounts& receive_rows,  // [size], see exchange_counts
                       Communicator& axis, Purpose purpose);

/// PendingRows are rows on their way; copies mean the same rows.
struct PendingRows {
  struct Exchange;
  std::shared_ptr<Exchange> exchange;  // null on an axis of one rank
  Variable here;                       // the result on an axis of one rank
};

/// These two are exchange_rows in two steps, so that other work can be done while rows travel:
///   forward    start: the rows leave              finish: waits for the rows that come
///   backward   start: waits for their gradients   finish: the gradients leave
/// Ops recorded between the two in forward lie between them in backward as well. Every start needs one
/// finish, on the same tape, and x must not change before. Waiting for slower ranks overlaps for certain; MPI
/// decides whether the copying does. Open MPI sends small rows off at the start. It moves large ones between
/// ranks of one machine only while the receiver is inside an MPI call, which is in the finish.
PendingRows start_exchange_rows(Tape& tape, const Variable& x, const RowCounts& send_rows,
                                const RowCounts& receive_rows, Communicator& axis, Purpose purpose);
Variable finish_exchange_rows(Tape& tape, const PendingRows& pending);

}  // namespace conclave
