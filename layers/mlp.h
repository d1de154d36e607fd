// Mlp: the dense SwiGLU block, also used for shared experts: down(silu(gate(x)) * up(x)).
// Parameters under NAME: gate_proj, up_proj [intermediate, hidden], down_proj [hidden, intermediate].
#pragma once

#include "layers/attention.h"
#include "layers/linear.h"

namespace conclave {

class Mlp {
 public:
  Mlp(ParameterSet& parameters, const std::string& name, std::int64_t hidden, std::int64_t intermediate,
      const InitialRange& range)
      : gate_(parameters, name + ".gate_proj", hidden, intermediate, range.inner),
        up_(parameters, name + ".up_proj", hidden, intermediate, range.inner),
        down_(parameters, name + ".down_proj", intermediate, hidden, range.residual) {}

  /// x [tokens, hidden] -> [tokens, hidden]
  Variable forward(Tape& tape, const Variable& x) const {
    return down_.forward(tape, swiglu(tape, gate_.forward(tape, x), up_.forward(tape, x)));
  }

 private:
  Linear gate_, up_, down_;
};

}  // namespace conclave
