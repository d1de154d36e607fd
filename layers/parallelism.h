// Parallelism: how layers are laid out over the ranks, and the four steps between the regions of a block:
//   residual stream   whole on every tensor rank, or, with sequence parallelism (Korthikanti et al.,
//                     arXiv 2205.05198), this tensor rank's rows of it
//   tensor region     all rows, this rank's heads or columns (Shoeybi et al., arXiv 1909.08053)
//   token shard       this tensor rank's rows, all columns: where routing and experts work, so that no
//                     token is counted or sent twice
#pragma once

#include "parallel/collectives.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/recipe.h"

namespace conclave {

enum class SequenceParallel { off, on };

struct Parallelism {
  const Mesh& mesh = Mesh::alone();
  SequenceParallel sequence = SequenceParallel::off;
  DispatcherKind dispatcher = DispatcherKind::all_to_all;
  std::int64_t dispatch_rows = 0;  // the most rows a rank receives from all_to_all at once; 0: no bound

  Communicator& tensor() const { return mesh.axis(Axis::tensor); }
  bool shards_sequence() const { return sequence == SequenceParallel::on && tensor().size() > 1; }

  /// residual stream -> tensor region
  Variable enter_tensor(Tape& tape, const Variable& x) const {
    return shards_sequence() ? gather_rows(tape, x, tensor(), Purpose::activations)
                             : enter_parallel(tape, x, tensor(), Purpose::activations);
  }
  /// this rank's term of a sum over the tensor region -> residual stream
  Variable leave_tensor(Tape& tape, const Variable& partial) const {
    return shards_sequence() ? scatter_sum(tape, partial, tensor(), Purpose::activations)
                             : sum_partial(tape, partial, tensor(), Purpose::activations);
  }
  /// residual stream -> token shard
  Variable enter_shard(Tape& tape, const Variable& x) const {
    return shards_sequence() ? x : take_rows(tape, x, tensor(), Purpose::activations);
  }
  /// token shard -> residual stream
  Variable leave_shard(Tape& tape, const Variable& x) const {
    return shards_sequence() ? x : collect_rows(tape, x, tensor(), Purpose::activations);
  }

  // Where parameters live, by what their gradients are sums over.
  /// Cut over tensor ranks along a dim.
  static Placement cut(int dim) { return {{{dim, Axis::tensor}}, Axis::data}; }
  /// Whole, used differently by every tensor rank: on its heads or on its tokens.
  static Placement per_rank() { return {{}, Axis::data_tensor}; }
  /// Whole, used on the residual stream.
  Placement residual() const { return {{}, shards_sequence() ? Axis::data_tensor : Axis::data}; }
};

}  // namespace conclave
