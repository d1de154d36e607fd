// CosineScores: scores an expert by the angle between a projection of the token and the expert's embedding,
// as X-MoE does against representation collapse (Chi et al., arXiv 2204.09179). Because both sides are
// normalised, long hidden states get no sharper scores than short ones. docs/add_a_router.md walks through
// it.
#pragma once

#include "layers/moe/router.h"

namespace conclave {

/// score_i = sum over d of gain_d^2 normed(W x)_d normed(e_i)_d. RMS norms make vectors of length
/// sqrt(width), so that with gains of 1, as they start, a score is width times the cosine. X-MoE has one
/// learned temperature; here each dim has its own, and its square keeps it from turning negative. Parameters:
/// NAME.projection.weight [width, hidden], NAME.embeddings [experts, width], NAME.gain.weight [width].
class CosineScores final : public Scores {
 public:
  struct Options {
    std::int64_t hidden, experts;
    std::int64_t width;  // of the space in which angles are measured; X-MoE takes half the experts
    double initializer_range = 0.02;
  };
  CosineScores(ParameterSet& parameters, const std::string& name, const Options& options)
      : projection_(parameters, name + ".projection", options.hidden, options.width,
                    options.initializer_range, Parallelism::per_rank()),
        embeddings_(parameters.create(name + ".embeddings", {options.experts, options.width},
                                      {Initializer::Kind::normal, options.initializer_range}, Decay::yes,
                                      Parallelism::per_rank())),
        gain_(parameters, name + ".gain", options.width, 1e-6, Parallelism::per_rank()) {}

  Variable of(Tape& tape, const RouterInput& input) const override {
    const Variable token = gain_.forward(tape, projection_.forward(tape, input.x));  // [tokens, width]
    const Variable experts = gain_.forward(tape, embeddings_.use(tape));             // [experts, width]
    return linear(tape, token, experts);                                             // [tokens, experts]
  }

 private:
  Linear projection_;
  const Parameter& embeddings_;
  RmsNorm gain_;
};

}  // namespace conclave
