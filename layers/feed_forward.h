// FeedForward: what stands in the MLP's place of a transformer block. Dense MLPs and mixtures of experts are
// two kinds of it; the transformer is given a maker of them and knows neither.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "framework/autograd/ops/routing.h"
#include "layers/initial_range.h"
#include "layers/model_input.h"
#include "layers/parallelism.h"

namespace conclave {

class FeedForward {
 public:
  virtual ~FeedForward() = default;

  struct Result {
    Variable y;                             // as x
    std::vector<RouterStatistics> routers;  // of its routers, in order; this rank's tokens
  };
  /// x [rows of the residual stream, hidden], already normed; input: the whole micro-batch
  virtual Result forward(Tape& tape, const Variable& x, const ModelInput& input) const = 0;
  /// How many statistics a result has.
  virtual std::int64_t routers() const = 0;
  /// The profile counts the block's norm and sum, and what says nothing else, under this purpose.
  virtual const char* purpose() const = 0;
};

/// The block that a FeedForward is made for.
struct BlockPlace {
  std::string name;        // of its parameters: "model.layers.0.mlp"
  std::int64_t block = 0;  // from 0
  const InitialRange& range;
  const Parallelism& parallelism;
};
using FeedForwardMaker =
    std::function<std::unique_ptr<FeedForward>(ParameterSet& parameters, const BlockPlace& place)>;

}  // namespace conclave
