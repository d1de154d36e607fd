// Router: decides which experts a token goes to and with what weight. It knows no ranks, no dispatch and no
// loss; it leaves statistics behind. A new router is one file that derives from Router; docs/add_a_router.md
// walks through one.
#pragma once

#include <memory>

#include "framework/autograd/ops/routing.h"
#include "layers/linear.h"
#include "layers/model_input.h"
#include "layers/parallelism.h"

namespace conclave {

/// What every routing op is told about the tokens at hand.
inline RouteOptions route_options(const ModelInput& input, std::int64_t top_k, const RouteRule& rule = {}) {
  return {.top_k = top_k,
          .rule = rule,
          .pools = input.pools,
          .sequences = input.sequences,
          .length = input.length,
          .first_token = input.first_token};
}

class Router {
 public:
  virtual ~Router() = default;
  /// x [tokens, hidden] -> experts and weights [tokens, top_k], statistics by sequence. Where input.pools
  /// says so, from each document's pool alone, which route_options() hands on to route().
  virtual Routing route(Tape& tape, const Variable& x, const ModelInput& input) const = 0;
};

/// A linear score for each expert, then the top k by a rule: softmax scores (Shazeer et al., arXiv
/// 1701.06538, without noise) or sigmoid scores (DeepSeek-V3, arXiv 2412.19437), with or without groups and a
/// selection bias. Parameter: NAME.weight [experts, hidden].
class TopKRouter final : public Router {
 public:
  struct Options {
    std::int64_t hidden, experts, top_k;
    RouteRule rule;
    double initializer_range;
  };
  TopKRouter(ParameterSet& parameters, const std::string& name, const Options& options)
      : options_(options),
        gate_(parameters, name, options.hidden, options.experts, options.initializer_range,
              Parallelism::per_rank(), Precision::full) {}

  Routing route(Tape& tape, const Variable& x, const ModelInput& input) const override {
    return conclave::route(tape, gate_.forward(tape, x), input.tokens,
                           route_options(input, options_.top_k, options_.rule));
  }

 private:
  Options options_;
  Linear gate_;
};

}  // namespace conclave
