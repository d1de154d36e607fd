// Experts: a SwiGLU block per expert, computed as grouped products over rows sorted by expert. They know no
// routing. Parameters under NAME, all experts of one kind stacked in dim 0 (expert e of Hugging Face's
// NAME.e.gate_proj.weight is row e): gate_proj.weight, up_proj.weight [experts, intermediate, hidden],
// down_proj.weight [experts, hidden, intermediate].
#pragma once

#include "layers/attention.h"
#include "parallel/parameter.h"

namespace conclave {

class Experts {
 public:
  struct Options {
    std::int64_t experts, hidden, intermediate;
  };
  Experts(ParameterSet& parameters, const std::string& name, const Options& options,
          const InitialRange& range)
      : gate_(stack(parameters, name + ".gate_proj.weight",
                    {options.experts, options.intermediate, options.hidden}, range.inner)),
        up_(stack(parameters, name + ".up_proj.weight",
                  {options.experts, options.intermediate, options.hidden}, range.inner)),
        down_(stack(parameters, name + ".down_proj.weight",
                    {options.experts, options.hidden, options.intermediate}, range.residual)) {}

  /// x [rows, hidden] sorted by expert, offsets int64 [experts + 1] -> [rows, hidden]
  Variable forward(Tape& tape, const Variable& x, const Tensor& offsets) const {
    const Variable gate = grouped_linear(tape, x, gate_.use(tape), offsets);
    const Variable up = grouped_linear(tape, x, up_.use(tape), offsets);
    return grouped_linear(tape, swiglu(tape, gate, up), down_.use(tape), offsets);
  }

 private:
  static const Parameter& stack(ParameterSet& parameters, const std::string& name, Shape shape,
                                double deviation) {
    return parameters.create(name, shape, {Initializer::Kind::normal, deviation}, Decay::yes);
  }
  const Parameter &gate_, &up_, &down_;
};

}  // namespace conclave
