// Mlp: dense SwiGLU, also used for shared experts: down(silu(gate(x)) * up(x)). DenseMlp: a whole block of
// it. Parameters under NAME: gate_proj, up_proj [intermediate, hidden], down_proj [hidden, intermediate]. A
// dense block shares its intermediate columns out over tensor ranks; shared experts are whole on every rank
// and see its token shard.
#pragma once

#include "layers/feed_forward.h"
#include "layers/linear.h"

namespace conclave {

class Mlp {
 public:
  struct Placements {
    Placement in_columns, out_rows;  // of gate and up, of down
  };
  static Placements over_tensor_ranks() { return {Parallelism::cut(0), Parallelism::cut(1)}; }
  static Placements on_token_shards() { return {Parallelism::per_rank(), Parallelism::per_rank()}; }

  Mlp(ParameterSet& parameters, const std::string& name, std::int64_t hidden, std::int64_t intermediate,
      const InitialRange& range, const Placements& placements)
      : gate_(parameters, name + ".gate_proj", hidden, intermediate, range.inner, placements.in_columns),
        up_(parameters, name + ".up_proj", hidden, intermediate, range.inner, placements.in_columns),
        down_(parameters, name + ".down_proj", intermediate, hidden, range.residual, placements.out_rows) {}

  /// x [rows, hidden] -> [rows, hidden]; over tensor ranks, this rank's term of the sum
  Variable forward(Tape& tape, const Variable& x) const {
    return down_.forward(tape, swiglu(tape, gate_.forward(tape, x), up_.forward(tape, x)));
  }

 private:
  Linear gate_, up_, down_;
};

class DenseMlp final : public FeedForward {
 public:
  DenseMlp(ParameterSet& parameters, const BlockPlace& place, std::int64_t hidden, std::int64_t intermediate)
      : parallelism_(place.parallelism),
        mlp_(parameters, place.name, hidden, intermediate, place.range, Mlp::over_tensor_ranks()) {}

  Result forward(Tape& tape, const Variable& x, const ModelInput&) const override {
    const Variable partial = mlp_.forward(tape, parallelism_.enter_tensor(tape, x));
    return {parallelism_.leave_tensor(tape, partial), {}};
  }
  std::int64_t routers() const override { return 0; }
  const char* purpose() const override { return "mlp"; }

 private:
  Parallelism parallelism_;
  Mlp mlp_;
};

}  // namespace conclave
