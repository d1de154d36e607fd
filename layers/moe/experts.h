// Experts: a SwiGLU block per expert, computed as grouped products over rows sorted by expert. They know no
// routing. Parameters under NAME stack all experts in dim 0: gate_proj.weight and up_proj.weight [experts,
// intermediate, hidden], down_proj.weight [experts, hidden, intermediate]. Row e is expert e of Hugging
// Face's NAME.e.gate_proj.weight. Dim 0 is shared out over expert ranks, intermediate over expert_tensor
// ranks.
#pragma once

#include "framework/autograd/ops/elementwise.h"
#include "framework/autograd/ops/linear.h"
#include "layers/initial_range.h"
#include "parallel/parameter.h"

namespace conclave {

class Experts {
 public:
  struct Options {
    std::int64_t experts, hidden, intermediate;  // of the model
  };
  Experts(ParameterSet& parameters, const std::string& name, const Options& options,
          const InitialRange& range)
      : gate_(parameters.create(name + ".gate_proj.weight",
                                {options.experts, options.intermediate, options.hidden}, normal(range.inner),
                                Decay::yes, stacked(1))),
        up_(parameters.create(name + ".up_proj.weight",
                              {options.experts, options.intermediate, options.hidden}, normal(range.inner),
                              Decay::yes, stacked(1))),
        down_(parameters.create(name + ".down_proj.weight",
                                {options.experts, options.hidden, options.intermediate},
                                normal(range.residual), Decay::yes, stacked(2))) {}

  /// x [rows, hidden] sorted by expert, offsets int64 [experts of this rank + 1] -> [rows, hidden]; with
  /// expert_tensor ranks, this rank's terms of the sums that are the outputs.
  Variable forward(Tape& tape, const Variable& x, const RowOffsets& offsets) const {
    const Variable gate = grouped_linear(tape, x, gate_.use(tape), offsets);
    const Variable up = grouped_linear(tape, x, up_.use(tape), offsets);
    return grouped_linear(tape, swiglu(tape, gate, up), down_.use(tape), offsets);
  }

 private:
  static Initializer normal(double deviation) { return {Initializer::Kind::normal, deviation}; }
  static Placement stacked(int intermediate_dim) {
    return {{{0, Axis::expert}, {intermediate_dim, Axis::expert_tensor}}, Axis::expert_data};
  }
  const Parameter &gate_, &up_, &down_;
};

}  // namespace conclave
